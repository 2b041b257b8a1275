"""A bounded stream of events for one reader."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from holdfast.client.link import Link
from holdfast.client.view import News, Reset
from holdfast.protocol import Event

BUFFER: Final = 1_000
"""How many events wait for a reader; then the oldest go, and it is told how many."""


@dataclass(frozen=True, slots=True)
class Lagged:
    """The reader was too slow: `missed` events are not told one by one. The messages and runs have them all."""

    missed: int


class Backlog:
    """What waits for the reader of a feed, at most `size` items; then the oldest go, and are counted."""

    def __init__(self, wants: Callable[[Event], bool], size: int) -> None:
        self._wants = wants
        self._size = size
        self._news: deque[News] = deque()
        self._missed = 0

    def deliver(self, news: News) -> None:
        """Takes in the next event or reset."""
        if not isinstance(news, Reset) and not self._wants(news):
            return
        if len(self._news) == self._size:
            self._news.popleft()
            self._missed += 1
        self._news.append(news)

    def take(self) -> News | Lagged | None:
        """The next of what waits; None for nothing."""
        if self._missed:
            missed, self._missed = self._missed, 0
            return Lagged(missed)
        return self._news.popleft() if self._news else None


class Feed:
    """Events from the moment it was made, for one reader; an async iterator.

    Yields events, `Reset` where a snapshot stands for what led to it, and `Lagged` where the reader fell behind by
    more than `buffer`. It ends when `finished` says so, and raises what ended the client once all was read.
    """

    def __init__(
        self,
        link: Link,
        backlog: Backlog,
        *,
        finished: Callable[[], Awaitable[bool]],
        taken: Callable[[Event], None],
    ) -> None:
        self._link = link
        self._backlog = backlog
        self._finished = finished
        self._taken = taken

    def __aiter__(self) -> AsyncIterator[Event | Reset | Lagged]:
        return self

    async def __anext__(self) -> Event | Reset | Lagged:
        while True:
            item = self._backlog.take()
            if item is None and await self._finished():
                item = self._backlog.take()  # it may have come with the end
                if item is None:
                    raise StopAsyncIteration
            if item is not None:
                if not isinstance(item, Reset | Lagged):
                    self._taken(item)
                return item
            failure = self._link.connection.failure
            if failure is not None:
                raise failure
            await self._link.changed()
