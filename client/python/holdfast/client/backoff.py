"""How long to wait before the next try: exponential, full jitter, bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

BASE_SECONDS: Final = 0.5
MAX_SECONDS: Final = 30.0


def backoff(attempt: int, random: Callable[[], float], *, hint_ms: int | None = None) -> float:
    """Seconds to wait before try number `attempt` (from 0) after a failure.

    Full jitter: anything from nothing to the bound, so that clients which lost one server together do not come
    back together. `hint_ms` is the server's wish and the least that is waited; `random` gives numbers in [0, 1).
    """
    bound = min(MAX_SECONDS, BASE_SECONDS * 2.0 ** min(attempt, 16))
    return max(random() * bound, (hint_ms or 0) / 1000)
