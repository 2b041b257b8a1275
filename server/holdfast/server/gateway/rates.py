"""How much one connection may ask of the server, and how often it may err."""

from __future__ import annotations

from collections import deque
from typing import Final

from holdfast.server.settings import GatewaySettings

_BYTES_PER_COMMAND: Final = 65_536
"""A message costs as much as one more command for each so many bytes of it."""
_FRAME_COST: Final = 0.25
"""What a control frame or a fragment costs, in commands."""


class TokenBucket:
    """Lets `burst` through at once and `per_second` in the long run. Owns no clock: seconds are passed in."""

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._since = now

    def take(self, now: float, cost: float = 1.0) -> float:
        """Takes `cost` and returns 0.0, or takes nothing and returns the seconds until there is enough.

        What costs more than the burst is let through when the bucket is full, and then paid off.
        """
        self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
        self._since = now
        missing = min(cost, self._burst) - self._left
        if missing <= 0.0:
            self._left -= cost
            return 0.0
        return missing / self._per_second

    def give_back(self, cost: float) -> None:
        """Undoes a `take`."""
        self._left += cost


class Strikes:
    """Counts what should not happen: `strike` is True for the one that makes `limit` within `seconds`."""

    __slots__ = ("_seconds", "_times")

    def __init__(self, limit: int, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque(maxlen=limit)

    def strike(self, now: float) -> bool:
        """Counts one at the time `now`, seconds that never go back."""
        self._times.append(now)
        return len(self._times) == self._times.maxlen and now - self._times[0] <= self._seconds


class Meter:
    """Weighs all that one connection sends, in one bucket. Owns no clock: seconds are passed in.

    A message costs 1, and 1 more for each 64 KiB of it; a control frame or a fragment of a message costs a quarter.
    What the bucket has no room for is refused, and a client that goes on and on nevertheless has to go.
    """

    __slots__ = ("_bucket", "_refusals", "_settings")

    def __init__(self, settings: GatewaySettings, now: float) -> None:
        self._settings = settings
        self._bucket = TokenBucket(settings.commands_per_second, settings.command_burst, now)
        self._refusals: Strikes | None = None

    def message(self, size: int, now: float) -> float:
        """Weighs a message of `size` bytes: 0.0, or the seconds until it may be sent again."""
        return self._bucket.take(now, _message_cost(size))

    def give_back(self) -> None:
        """Takes back the weight of a small message that should not have been weighed."""
        self._bucket.give_back(1.0)

    def refused(self, size: int, now: float) -> bool:
        """Counts a message that was refused, a large one several times; True for a client that has to go."""
        return any(self._strike(now) for _ in range(_message_cost(size)))

    def frame(self, now: float) -> bool:
        """Weighs a control frame or a fragment; True for a client that has to go."""
        return self._bucket.take(now, _FRAME_COST) > 0.0 and self._strike(now)

    def _strike(self, now: float) -> bool:
        if self._refusals is None:
            self._refusals = Strikes(self._settings.refusals_per_minute)
        return self._refusals.strike(now)


def _message_cost(size: int) -> int:
    return 1 + size // _BYTES_PER_COMMAND
