"""Which sessions have failed here, and when they may be opened again. Owns no clock: seconds are passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FAILURES_IN_A_ROW: Final = 5
"""After so many the server does not open a session by itself any more."""
SHUT_SECONDS: Final = 60.0
"""How long nobody gets such a session; who asks then has it tried once more."""
_PAUSES: Final = (0.0, 5.0, 10.0, 20.0)
"""After the first failure, the second, and so on: nobody gets the session meanwhile."""
_REMEMBERED_SECONDS: Final = 600.0
"""A session that has not failed for so long begins anew."""


@dataclass(slots=True)
class _Failures:
    count: int
    last: float
    for_good: bool = False

    @property
    def shut(self) -> bool:
        """Whether the server does not open the session by itself any more."""
        return self.for_good or self.count >= FAILURES_IN_A_ROW


class FailedSessions:
    """The sessions that have failed within the last ten minutes, and how often in a row."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failures] = {}

    def failed(self, session: str, now: float, *, for_good: bool = False) -> bool:
        """Notes a failure, `for_good` where another try would not help; whether the session stays shut from now on."""
        self._forget_before(now - _REMEMBERED_SECONDS)
        failures = self._failures.setdefault(session, _Failures(0, now))
        failures.count += 1
        failures.last = now
        failures.for_good = for_good
        return failures.shut

    def refusal(self, session: str, now: float) -> str | None:
        """Why nobody gets the session now, for whoever asks; None where it may be opened."""
        failures = self._failures.get(session)
        if failures is None:
            return None
        pause = SHUT_SECONDS if failures.shut else _PAUSES[failures.count - 1]
        left = failures.last + pause - now
        if left <= 0:
            return None
        what = "cannot be opened" if failures.for_good else f"has failed {failures.count} times in a row"
        return f"the session {what} on this server, whose log has the reason; it is tried again in {math.ceil(left)} s"

    def left_alone(self, session: str, now: float) -> bool:
        """Whether the server does not open it by itself, now or until somebody has asked for it."""
        self._forget_before(now - _REMEMBERED_SECONDS)
        failures = self._failures.get(session)
        if failures is None:
            return False
        return failures.shut or self.refusal(session, now) is not None

    def _forget_before(self, time: float) -> None:
        self._failures = {session: item for session, item in self._failures.items() if item.last >= time}
