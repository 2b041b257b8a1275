"""A store that forgets everything with the process: for tests, and for servers whose sessions may be thrown
away.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping, Sequence, Set
from operator import attrgetter

import structlog
from typing_extensions import override

from holdfast.server.store.base import Listener
from holdfast.server.store.leases import LocalStore, wall_clock_ms
from holdfast.server.store.values import (
    CONFLICT_BATCHES,
    NO_LOG,
    NOTHING_OWED,
    WAKE_UP_BYTES,
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

_end = attrgetter("last_seq")
_log = structlog.get_logger("holdfast.store")


class _SessionLog:
    """All that is kept of one session."""

    __slots__ = (
        "archive",
        "batches",
        "checkpoint",
        "floor",
        "head",
        "incarnation",
        "owed",
        "records",
        "seqs",
        "watchers",
    )

    def __init__(self, head: Head, incarnation: int) -> None:
        self.head = head
        self.incarnation = incarnation
        self.batches: list[Batch] = []
        self.floor = 0
        self.owed = NOTHING_OWED
        self.watchers: set[str] = set()
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
    long as the store does. With `shared=True` several nodes of one process may share it, as tests do.
    """

    def __init__(self, clock: Callable[[], int] = wall_clock_ms, *, shared: bool = False) -> None:
        super().__init__(clock)
        self.shared = shared
        self.durable = False
        self.incarnation = 0
        """Another one after the store was put back to what it was at an earlier time, as tests do."""
        self._logs: dict[str, _SessionLog] = {}
        self._index: set[str] = set()
        self._listeners: dict[str, Listener] = {}
        self._wake_ups: list[tuple[str, str, Head, Head, Batch | None]] = []
        """Node, session, heads and batch, until this turn of the event loop is over."""

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
    async def open(self, session: str, new_epoch: str, *, watcher: str | None = None) -> Log:
        log = self._logs.get(session)
        if log is None:
            log = self._logs[session] = _SessionLog(Head(new_epoch, 0, ""), self.incarnation)
        if watcher is not None:
            log.watchers.add(watcher)
        first = log.batches_after(log.checkpoint.seq) if log.checkpoint else 0
        suspect = log.incarnation != self.incarnation
        return Log(log.head, log.checkpoint, tuple(log.batches[first:]), suspect)

    @override
    def append_many(self, requests: Sequence[Append], landed: Landed) -> Sequence[Outcome]:
        return [self._append(request) for request in requests]

    def _append(self, request: Append) -> Outcome:
        session, expected, batch, node, owed = request
        mistake = not_following(expected, batch)
        if mistake is not None:
            return mistake
        log = self._logs.get(session)
        if log is None:
            return Conflict(NO_LOG)
        head = log.head
        if head.batch_id == batch.batch_id and head.epoch == expected.epoch:
            return Appended(head, self._contended(session, node))
        if head is expected or head == expected:
            log.batches.append(batch)
            log.head = head = Head(head.epoch, batch.last_seq, batch.batch_id)
            if owed is not log.owed:
                self._enter(session, log, owed)
            for watcher in log.watchers:
                if watcher != node:
                    self._wake(watcher, session, expected, head, batch)
            return Appended(head, self._contended(session, node) if self._marks else False)
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
    async def heads(self, sessions: Sequence[str], *, watcher: str | None = None) -> list[Head | None]:
        logs = [self._logs.get(session) for session in sessions]
        if watcher is not None:
            for log in logs:
                if log is not None:
                    log.watchers.add(watcher)
        return [None if log is None else log.head for log in logs]

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
        log.head, log.incarnation = Head(epoch, seq, log.head.batch_id), self.incarnation
        for watcher in log.watchers:
            self._wake(watcher, session, expected, log.head, None)
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
    def listen(self, node: str, listener: Listener) -> Callable[[], None]:
        self._listeners[node] = listener

        def end() -> None:
            self._listeners.pop(node, None)

        return end

    @override
    async def unwatch(self, session: str, node: str) -> None:
        log = self._logs.get(session)
        if log is not None:
            log.watchers.discard(node)

    @override
    async def release(self, node: str) -> None:
        await super().release(node)
        for log in self._logs.values():
            log.watchers.discard(node)

    def _wake(self, watcher: str, session: str, before: Head, head: Head, batch: Batch | None) -> None:
        """Wake a node after the present callback: it must not be able to fail or re-enter somebody's append."""
        if watcher not in self._listeners:
            return
        if batch is not None and len(batch.payload) > WAKE_UP_BYTES:
            batch = None
        if not self._wake_ups:
            asyncio.get_running_loop().call_soon(self._tell)
        self._wake_ups.append((watcher, session, before, head, batch))

    def _tell(self) -> None:
        wake_ups, self._wake_ups = self._wake_ups, []
        for watcher, session, before, head, batch in wake_ups:
            log, listener = self._logs.get(session), self._listeners.get(watcher)
            if listener is None or log is None or watcher not in log.watchers:
                continue
            try:
                listener.heard(session, before, head, batch)
            except Exception:
                _log.exception("wake-up failed", session=session, node=watcher)

    @override
    async def orphans(self, live: Set[str], now: int) -> dict[str, Owed]:
        entries = {session: self._logs[session].owed for session in sorted(self._index)}
        return {session: owed for session, owed in entries.items() if owed.is_orphan(live, now)}
