"""Time, as the server reads it: passed in everywhere, so that tests can turn it by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def within(clock: Clock, seconds: float) -> AsyncGenerator[None, None]:
    """Raises TimeoutError when what is inside takes longer than `seconds` of this clock."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = clock.call_later(seconds, lambda: limit.reschedule(loop.time()))
        try:
            yield
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


class Timers:
    """The timers of one owner, by name: one of a name at a time. `clear` them when it ends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: dict[str, Timer] = {}

    def __bool__(self) -> bool:
        return bool(self._timers)

    def __contains__(self, name: str) -> bool:
        return name in self._timers

    def after(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Calls `call` after `seconds`, instead of what waited under this name."""

        def fire() -> None:
            self._timers.pop(name, None)
            call()

        self.cancel(name)
        self._timers[name] = self._clock.call_later(seconds, fire)

    def cancel(self, name: str) -> None:
        """What waits under this name is not called. Harmless when nothing does."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def clear(self) -> None:
        """Nothing is called any more."""
        for name in list(self._timers):
            self.cancel(name)
