"""Bringing subscribers that are behind to the head, each as fast as it reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import structlog

from holdfast.protocol.close_codes import CloseCode
from holdfast.server.session.slices import Slices
from holdfast.server.session.subscriber import Subscriber
from holdfast.server.session.subscribers import Subscribers

_log = structlog.get_logger("holdfast.session")


class CatchUps:
    """The way in which the readers of one session catch up."""

    def __init__(self, session: str, slices: Slices) -> None:
        self._session = session
        self._slices = slices

    async def run(self, subscribers: Subscribers, subscriber: Subscriber) -> None:
        """Returns when the subscriber is live, or its wire is closed. Raises TimeoutError for one that does not read.

        What is next is read in one moment, and written when the wire has room for it.
        """
        while subscriber.behind and not subscriber.wire.closed:
            await subscriber.wire.drained()
            messages = await subscribers.advance(subscriber)
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

    async def watched(self, subscribers: Subscribers, subscriber: Subscriber) -> None:
        """The same for one that nobody waits for: a connection that it cannot serve is closed."""
        try:
            await self.run(subscribers, subscriber)
        except TimeoutError:
            subscriber.wire.close(CloseCode.TOO_SLOW, "this connection reads too slowly")
        except Exception:
            _log.exception("catching up failed", session=self._session, connection=subscriber.connection)
            subscriber.wire.close(CloseCode.STORE_UNAVAILABLE, "what was missed could not be read")
