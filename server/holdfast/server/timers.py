"""Calls that wait for their time, by name: one of a name at a time, all cancelled together."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.server.clock import Clock, Timer


class Timers:
    """The timers of one owner. `clear` them when it ends."""

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
