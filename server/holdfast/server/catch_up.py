"""Bringing subscribers that are behind to the head, each as fast as it reads."""

from __future__ import annotations

import asyncio

import structlog

from holdfast.protocol.close_codes import CloseCode
from holdfast.server.delivery import Delivery
from holdfast.server.jobs import Jobs
from holdfast.server.roles import SessionFailed
from holdfast.server.subscriber import Subscriber

_log = structlog.get_logger("holdfast.session")


class CatchUps:
    """The catch-ups of one session that nobody waits for, and the way each of them goes."""

    def __init__(self, session: str, jobs: Jobs) -> None:
        self._session = session
        self._jobs = jobs
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, delivery: Delivery, subscriber: Subscriber) -> None:
        """Returns when the subscriber is live, or its wire is closed. Raises TimeoutError for one that does not read.

        What is next is read in the actor, and written here when the wire has room for it.
        """
        while subscriber.behind and not subscriber.wire.closed:
            await subscriber.wire.drained()
            messages = await self._jobs.run(lambda _: delivery.advance(subscriber))
            if not messages:
                return  # it is live; if it has fallen behind again since, that has a catch-up of its own
            for message in messages:
                await subscriber.wire.drained()
                subscriber.write(message)

    def start(self, delivery: Delivery, subscriber: Subscriber) -> None:
        """Runs a catch-up beside everything else; a connection that it cannot serve is closed."""
        task = asyncio.create_task(self._run(delivery, subscriber), name=f"catch up {subscriber.connection}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, delivery: Delivery, subscriber: Subscriber) -> None:
        try:
            await self.run(delivery, subscriber)
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
