"""Time, as the server reads it: passed in everywhere, so that tests can turn it by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that waits for its time."""

    def cancel(self) -> None:
        """The call does not happen any more. Harmless when it has."""
        ...


class Clock(Protocol):
    """Wall time for the log, a steady count for durations, and calls at a later time."""

    def now(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Calls `call` on the event loop after `seconds`."""
        ...


async def pause(clock: Clock, seconds: float) -> None:
    """Returns when `seconds` have passed on `clock`."""
    passed = asyncio.Event()
    timer = clock.call_later(seconds, passed.set)
    try:
        await passed.wait()
    finally:
        timer.cancel()


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    def now(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Calls `call` on the running event loop after `seconds`."""
        return asyncio.get_running_loop().call_later(seconds, call)
