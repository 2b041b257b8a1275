"""A store that forgets everything with the process: for tests, and for servers whose sessions may be thrown
away.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter

from typing_extensions import override

from holdfast.server.store.base import (
    CONFLICT_BATCHES,
    NO_LOG,
    NOTHING_OWED,
    Append,
    Appended,
    Batch,
    Checkpoint,
    Conflict,
    Head,
    Landed,
    Log,
    Outcome,
    Owed,
    StoredMessage,
    StoredSize,
    Tail,
    not_following,
    page,
)
from holdfast.server.store.leases import LocalStore, wall_clock_ms

_end = attrgetter("last_seq")


class _SessionLog:
    """All that is kept of one session."""

    __slots__ = ("archive", "batches", "checkpoint", "floor", "head", "owed", "records", "seqs")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.batches: list[Batch] = []
        self.floor = 0
        self.owed = NOTHING_OWED
        self.checkpoint: Checkpoint | None = None
        self.seqs: list[int] = []  # the keys of `archive`, ascending
        self.archive: dict[int, StoredMessage] = {}
        self.records: dict[str, bytes] = {}

    def batches_after(self, seq: int) -> int:
        """The index of the first batch that ends after `seq`."""
        return bisect_right(self.batches, seq, key=_end)

    def page(self, after: int, count: int) -> tuple[Batch, ...]:
        """The batches that end after `after`, as one answer holds them."""
        first = self.batches_after(after)
        return page(self.batches[first : first + count], count)


class MemoryStore(LocalStore):
    """The interface over dictionaries. Every method completes without suspending.

    Nothing bounds its size but the trims its callers ask for: checkpoints, archives and records stay for as
    long as the store does. With `exclusive=False` several nodes of one process may share it, as tests do.
    """

    def __init__(self, clock: Callable[[], int] = wall_clock_ms, *, exclusive: bool = True) -> None:
        super().__init__(clock)
        self.exclusive = exclusive
        self.durable = False
        self._logs: dict[str, _SessionLog] = {}
        self._index: set[str] = set()

    @override
    async def start(self) -> None:
        """Nothing to do: the store is ready when it is made."""

    @override
    async def close(self) -> None:
        """Nothing to do: the contents stay until the store is garbage, so that tests can start a node again
        over it.
        """

    @override
    async def ping(self) -> None:
        """Nothing to do: memory can be written."""

    @override
    async def open(self, session: str, new_epoch: str) -> Log:
        log = self._logs.get(session)
        if log is None:
            log = self._logs[session] = _SessionLog(Head(new_epoch, 0, ""))
        first = log.batches_after(log.checkpoint.seq) if log.checkpoint else 0
        return Log(log.head, log.checkpoint, tuple(log.batches[first:]))

    @override
    def append_many(self, requests: Sequence[Append], landed: Landed) -> Sequence[Outcome]:
        return [self._append(*request) for request in requests]

    def _append(self, session: str, expected: Head, batch: Batch, node: str, owed: Owed) -> Outcome:
        if (mistake := not_following(expected, batch)) is not None:
            return mistake
        log = self._logs.get(session)
        if log is None:
            return Conflict(NO_LOG)
        head = log.head
        if (head.epoch, head.batch_id) == (expected.epoch, batch.batch_id):
            return Appended(head, self._contended(session, node))
        if head == expected:
            log.batches.append(batch)
            log.head = head = Head(head.epoch, batch.last_seq, batch.batch_id)
            if owed is not log.owed:
                self._enter(session, log, owed)
            if self._watchers:
                self._wake_others(session, head, node)
            return Appended(head, bool(self._marks) and self._contended(session, node))
        self._mark(session, node)
        if head.epoch != expected.epoch or log.floor >= max(1, expected.seq):
            return Conflict(head)
        return Conflict(head, log.page(expected.seq - 1, CONFLICT_BATCHES))

    def _enter(self, session: str, log: _SessionLog, owed: Owed) -> None:
        log.owed = owed
        if owed == NOTHING_OWED:
            self._index.discard(session)
        else:
            self._index.add(session)

    @override
    async def head(self, session: str) -> Head | None:
        log = self._logs.get(session)
        return log.head if log else None

    @override
    async def read(self, session: str, after: int, *, count: int = 1_000) -> Tail:
        log = self._logs.get(session)
        return Tail(NO_LOG, 0, ()) if log is None else Tail(log.head, log.floor, log.page(after, count))

    @override
    async def new_epoch(self, session: str, expected: Head, epoch: str, seq: int) -> bool:
        if seq < expected.seq:
            raise ValueError(f"an epoch cannot begin at seq {seq}, below its log's {expected.seq}")
        log = self._logs.get(session)
        if log is None or log.head != expected:
            return False
        log.head = Head(epoch, seq, log.head.batch_id)
        self._wake_others(session, log.head, None)
        return True

    @override
    async def compact(
        self,
        session: str,
        epoch: str,
        checkpoint: Checkpoint,
        *,
        messages: Sequence[StoredMessage],
        records: Mapping[str, bytes],
        trim_to: int,
    ) -> bool:
        log = self._logs.get(session)
        if log is None or log.head.epoch != epoch or checkpoint.seq > log.head.seq:
            return False
        if log.checkpoint is None or log.checkpoint.seq <= checkpoint.seq:
            log.checkpoint = checkpoint
        for message in messages:
            if message.seq not in log.archive:
                insort(log.seqs, message.seq)
            log.archive[message.seq] = message
        log.records.update(records)
        trimmed = log.batches_after(min(trim_to, log.checkpoint.seq))
        if trimmed:
            log.floor = log.batches[trimmed - 1].last_seq
            del log.batches[:trimmed]
        return True

    @override
    async def find(self, session: str, keys: Sequence[str]) -> dict[str, bytes]:
        log = self._logs.get(session)
        return {key: log.records[key] for key in keys if key in log.records} if log else {}

    @override
    async def messages(self, session: str, before: int | None, limit: int) -> list[StoredMessage]:
        log = self._logs.get(session)
        if log is None:
            return []
        end = len(log.seqs) if before is None else bisect_left(log.seqs, before)
        return [log.archive[seq] for seq in log.seqs[max(0, end - limit) : end]]

    @override
    async def message_sizes(self, session: str, before: int | None, limit: int) -> list[StoredSize]:
        found = await self.messages(session, before, limit)
        return [StoredSize(message.seq, message.message_id, len(message.payload)) for message in found]

    @override
    async def message_piece(self, session: str, seq: int, start: int, size: int) -> bytes:
        log = self._logs.get(session)
        message = None if log is None else log.archive.get(seq)
        return b"" if message is None else message.payload[start : start + size]

    @override
    async def orphans(self, live: Collection[str], now: int) -> list[str]:
        nodes = frozenset(live)
        return sorted(session for session in self._index if self._logs[session].owed.is_orphan(nodes, now))
