"""Transcript messages as they were at one seq, taken in one moment and read piece by piece while the log goes on.

Messages that have ended do not change any more, in memory or in the archive; of those whose run goes on the cut holds
the text so far, which is shared and not copied. So what is sent of a cut is of one seq however long its reader takes.
Nothing is copied but the piece in hand; what the session lets go of meanwhile stays in memory until the cut is read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Final, Protocol, TypeVar

from holdfast.protocol.codec import JSON_CODEC
from holdfast.protocol.events import Message, RunInfo
from holdfast.protocol.messages import OpenMessage, OpenPart
from holdfast.server.errors import StoreError
from holdfast.server.session.paging import ENTRIES_BYTES, entries, whole
from holdfast.server.session.records import MessageReader
from holdfast.server.session.slices import Slices
from holdfast.server.store import StoredMessage, StoredSize

_T = TypeVar("_T")
_READ_BYTES: Final = 256 * 1024
"""Read from the archive at a time."""


class Archive(Protocol):
    """Where messages lie that are not held in memory: facts, which may be read at any time."""

    async def archived(self, before: int, limit: int) -> list[StoredMessage]:
        """The `limit` last of them before the seq `before`."""
        ...

    async def archived_piece(self, seq: int, start: int, size: int) -> bytes:
        """Of the payload of one of them `size` bytes from `start`; less at its end."""
        ...


def as_it_is(message: OpenMessage) -> OpenMessage:
    """A copy that shares its text, and stays as it is whatever the run adds."""
    parts = [OpenPart.of_blocks(part.kind, {**part.fields}, part.blocks(), done=part.done) for part in message.parts]
    return OpenMessage({**message.fields}, parts)


@dataclass(frozen=True, slots=True)
class Cut:
    """The last messages at the seq `seq` of `epoch`, in order."""

    epoch: str
    seq: int
    at: int
    messages: Sequence[Message | OpenMessage | StoredSize]
    more: bool
    """Whether there are older ones."""
    archive: Archive
    slices: Slices

    def entries(self) -> AsyncGenerator[tuple[Message, int]]:
        """All messages in entries of bounded size, with about how many bytes of JSON."""
        return self._each(entries)

    def newest(self, max_bytes: int) -> Cut:
        """The same without the oldest messages that, with all behind them, are larger than this in the archive."""
        size, start = 0, len(self.messages)
        for message in reversed(self.messages):
            size += message.size if isinstance(message, StoredSize) else 0
            if size > max_bytes and start < len(self.messages):
                break
            start -= 1
        return replace(self, messages=self.messages[start:], more=self.more or start > 0)

    async def whole(self) -> list[Message]:
        """All messages, as long as they are."""
        messages: list[Message] = []
        pieces: list[Message] = []
        async with aclosing(self._each(_uncut)) as found:
            async for entry in found:
                if pieces and not entry.get("continued"):
                    messages.append(whole(pieces))
                    pieces = []
                pieces.append(entry)
        if pieces:
            messages.append(whole(pieces))
        return messages

    async def _each(self, cut: Callable[[Message | OpenMessage], Iterable[_T]]) -> AsyncGenerator[_T]:
        """What `cut` makes of all messages, one after the other; none of it is None."""
        for group in _grouped(self.messages):
            async with aclosing(self._read(group)) as readings:
                async for found in readings:
                    pieces = chain.from_iterable(map(cut, found))
                    while (piece := await self.slices.call(partial(next, pieces, None))) is not None:
                        yield piece

    async def _read(
        self, group: Message | OpenMessage | list[StoredSize]
    ) -> AsyncGenerator[Iterable[Message | OpenMessage]]:
        if not isinstance(group, list):
            yield (group,)
            return
        last = group[-1]
        if last.size <= _READ_BYTES:
            for stored in await self.archive.archived(last.seq + 1, len(group)):
                yield MessageReader().feed(stored.payload)
            return
        reader, start = MessageReader(), 0
        while start < last.size:
            piece = await self.archive.archived_piece(last.seq, start, _READ_BYTES)
            if not piece:
                raise StoreError("an archived message is shorter than it was")
            start += len(piece)
            yield reader.feed(piece)


def _uncut(message: Message | OpenMessage) -> Iterable[Message]:
    """A message as the archive has it, which need not be measured; one that goes on is joined from small entries."""
    return (entry for entry, _ in entries(message)) if isinstance(message, OpenMessage) else (message,)


def _grouped(
    messages: Iterable[Message | OpenMessage | StoredSize],
) -> Iterator[Message | OpenMessage | list[StoredSize]]:
    """Archived messages that are read together: neighbours, so that no other can come in between."""
    group: list[StoredSize] = []
    size = 0
    for message in messages:
        if group and not (isinstance(message, StoredSize) and size + message.size <= _READ_BYTES):
            yield group
            group, size = [], 0
        if isinstance(message, StoredSize):
            group.append(message)
            size += message.size
        else:
            yield message
    if group:
        yield group


async def snapshots(cut: Cut, *, reset: bool, runs: Sequence[RunInfo]) -> AsyncGenerator[dict[str, Any]]:
    """The `snapshot` messages of a session at one seq, each small enough to be sent."""
    head: dict[str, Any] = {"type": "snapshot", "epoch": cut.epoch, "seq": cut.seq, "at": cut.at, "reset": reset}
    messages: list[Message] = []
    infos: list[RunInfo] = []
    size = 0
    async with aclosing(cut.entries()) as found:
        async for entry, entry_size in found:
            if messages and size + entry_size > ENTRIES_BYTES:
                yield {**head, "messages": messages, "runs": [], "more": cut.more, "last": False}
                messages, size = [], 0
            messages.append(entry)
            size += entry_size
    for info in runs:
        entry_size = await cut.slices.call(partial(_size, info))
        if (messages or infos) and size + entry_size > ENTRIES_BYTES:
            yield {**head, "messages": messages, "runs": infos, "more": cut.more, "last": False}
            messages, infos, size = [], [], 0
        infos.append(info)
        size += entry_size
    yield {**head, "messages": messages, "runs": infos, "more": cut.more, "last": True}


async def pages(cut: Cut, command_id: str) -> AsyncGenerator[dict[str, Any]]:
    """The `page` messages for `history`."""
    messages: list[Message] = []
    size = 0
    async with aclosing(cut.entries()) as found:
        async for entry, entry_size in found:
            if messages and size + entry_size > ENTRIES_BYTES:
                yield {"type": "page", "id": command_id, "messages": messages, "more": cut.more, "last": False}
                messages, size = [], 0
            messages.append(entry)
            size += entry_size
    yield {"type": "page", "id": command_id, "messages": messages, "more": cut.more, "last": True}


def _size(value: Mapping[str, Any]) -> int:
    return len(JSON_CODEC.encode(value))
