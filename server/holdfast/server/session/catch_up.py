"""Bringing subscribers that are behind to the head, each as fast as it reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import structlog

from holdfast.protocol.close_codes import CloseCode
from holdfast.server.errors import SessionFailed
from holdfast.server.session.jobs import Jobs
from holdfast.server.session.slices import Slices
from holdfast.server.session.subscriber import Subscriber
from holdfast.server.session.subscribers import Subscribers

_log = structlog.get_logger("holdfast.session")


class CatchUps:
    """The catch-ups of one session that nobody waits for, and the way each of them goes."""

    def __init__(self, session: str, jobs: Jobs, slices: Slices) -> None:
        self._session = session
        self._jobs = jobs
        self._slices = slices
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, subscribers: Subscribers, subscriber: Subscriber) -> None:
        """Returns when the subscriber is live, or its wire is closed. Raises TimeoutError for one that does not read.

        What is next is read in the actor, and written here when the wire has room for it.
        """
        while subscriber.behind and not subscriber.wire.closed:
            await subscriber.wire.drained()
            messages = await self._jobs.run(lambda _: subscribers.advance(subscriber))
            if messages is None:
                return  # it is live; if it has fallen behind again since, that has a catch-up of its own
            async with aclosing(self._each(messages)) as each:
                async for message in each:
                    if not await self._written(subscriber, message):
                        return

    async def _written(self, subscriber: Subscriber, message: Mapping[str, Any]) -> bool:
        """Writes it when there is room; False where the wire was closed meanwhile."""
        await subscriber.wire.drained()
        if subscriber.wire.closed:
            return False
        await self._slices.call(partial(subscriber.write, message))
        return True

    async def _each(
        self, messages: AsyncGenerator[Mapping[str, Any]] | Iterator[Mapping[str, Any]]
    ) -> AsyncGenerator[Mapping[str, Any]]:
        if isinstance(messages, Iterator):
            while (message := await self._slices.call(partial(next, messages, None))) is not None:
                yield message
            return
        async with aclosing(messages):
            async for message in messages:
                yield message

    def start(self, subscribers: Subscribers, subscriber: Subscriber) -> None:
        """Runs a catch-up beside everything else; a connection that it cannot serve is closed."""
        task = asyncio.create_task(self._run(subscribers, subscriber), name=f"catch up {subscriber.connection}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, subscribers: Subscribers, subscriber: Subscriber) -> None:
        try:
            await self.run(subscribers, subscriber)
        except TimeoutError:
            subscriber.wire.close(CloseCode.TOO_SLOW, "this connection reads too slowly")
        except SessionFailed:
            subscriber.wire.close(CloseCode.STORE_UNAVAILABLE, "the session failed here")
        except Exception:
            _log.exception("catching up failed", session=self._session, connection=subscriber.connection)
            subscriber.wire.close(CloseCode.STORE_UNAVAILABLE, "what was missed could not be read")

    async def close(self) -> None:
        """Ends those that go on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
