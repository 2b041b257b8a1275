"""Reads that run in a session's actor between two commits, so that they never see a state half way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from holdfast.server.session.journal import Journal

_T = TypeVar("_T")


class Jobs:
    """What waits to be read. `notify` wakes the actor, which runs what it `take`s."""

    def __init__(self, journal: Journal, notify: Callable[[], None]) -> None:
        self._journal = journal
        self._notify = notify
        self._waiting: dict[Callable[[], Awaitable[None]], None] = {}
        self._askers: set[asyncio.Future[Any]] = set()
        self._closed: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def run(self, job: Callable[[Journal], Awaitable[_T]]) -> _T:
        """Runs `job` when its turn comes, and returns its result. Cancelled before that, it is left out.

        Raises what the job raises, or what the jobs were closed with.
        """
        if self._closed is not None:
            raise self._closed
        done: asyncio.Future[_T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            if done.done():
                return  # whoever asked has gone
            try:
                result = await job(self._journal)
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self._waiting[run] = None
        self._askers.add(done)
        done.add_done_callback(self._askers.discard)
        self._notify()
        try:
            return await done
        finally:
            self._waiting.pop(run, None)

    def take(self) -> list[Callable[[], Awaitable[None]]]:
        """Those that wait now, to be run in their order."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def close(self, error: Exception) -> None:
        """Nothing is run any more: who waits, or asks from now on, gets `error`."""
        self._closed = error
        for asker in list(self._askers):
            if not asker.done():
                asker.set_exception(error)
