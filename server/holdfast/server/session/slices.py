"""Long work on the event loop, a few milliseconds at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import Final, TypeVar

_T = TypeVar("_T")
SLICE_SECONDS: Final = 0.005
"""How long the event loop is held at a time."""


class Slices:
    """The long work of one event loop. However much of it there is at once, one slice is done between two turns."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._used = 0.0
        """Of the slice that pieces of work share, so that many short ones are no long one."""

    async def run(self, steps: Generator[None, None, _T]) -> _T:
        """Does `steps`, each of them short, and returns what they return. Cancelled, the rest is left undone."""
        results: list[_T] = []
        while not results:
            async with self._turn:
                began = time.monotonic()
                end = began + SLICE_SECONDS - self._used
                try:
                    next(steps)
                    while time.monotonic() < end:
                        next(steps)
                except StopIteration as stop:
                    results.append(stop.value)
                self._used += time.monotonic() - began
                if self._used >= SLICE_SECONDS:
                    self._used = 0.0
                    await asyncio.sleep(0)  # with the turn in hand: the others wait for the loop's next one
        return results[0]

    async def call(self, step: Callable[[], _T]) -> _T:
        """Does one short piece of work when its turn comes, and returns its result."""
        return await self.run(_one(step))


def _one(step: Callable[[], _T]) -> Generator[None, None, _T]:
    result = step()
    yield
    return result
