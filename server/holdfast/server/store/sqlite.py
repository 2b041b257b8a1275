"""The default store: one SQLite file that outlives the process, used by one process at a time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog
from typing_extensions import override

from holdfast.server.errors import StoreError, StoreUnavailableError
from holdfast.server.store.base import Listener
from holdfast.server.store.leases import LocalStore, wall_clock_ms
from holdfast.server.store.sqlite_file import (
    FileLock,
    FileWatch,
    Incarnation,
    Synchronous,
    boot_id,
    connect_reader,
    connect_writer,
    errors_translated,
)
from holdfast.server.store.sqlite_rows import read_batches, read_log, read_owed, read_page, rows_so_far
from holdfast.server.store.sqlite_writer import Committed, Operation, Transaction, Writer
from holdfast.server.store.values import (
    NO_LOG,
    Append,
    Appended,
    Checkpoint,
    Head,
    Landed,
    LiveNode,
    Log,
    Outcome,
    Owed,
    StoredMessage,
    StoredSize,
    Tail,
    not_following,
)

MAX_PENDING_WRITES = 65_536
"""Writes that may wait for the disk. Beyond it a write fails at once with `StoreUnavailableError`."""

PING_SECONDS = 1.0
"""A ping as young as this is answered by the last one: it may be asked for by anybody, and each writes."""
_PAYLOADS_BYTES = 32 * 1024 * 1024
"""Of large messages that are read in pieces kept at hand: SQLite reads a value whole, however little is asked for."""

_T = TypeVar("_T")
_log = structlog.get_logger("holdfast.store")


def _retrieve(ping: asyncio.Task[None]) -> None:
    """Whoever asked may have gone."""
    if not ping.cancelled():
        ping.exception()


def _nothing() -> None:
    """There is nothing to end."""


class _Flight:
    """Appends that were asked for together; the writer reports on them one after the other."""

    __slots__ = ("landed", "outcomes", "requests")

    def __init__(self, requests: Sequence[Append], landed: Landed) -> None:
        self.requests = requests
        self.landed = landed
        self.outcomes: list[Outcome] = []


def _appending(request: Append) -> Operation:
    def append(transaction: Transaction) -> object:
        mistake = not_following(request.expected, request.batch)
        return transaction.append(request) if mistake is None else mistake

    return append


@dataclass(frozen=True, slots=True)
class _OpenFile:
    """What there is between `start` and `close`."""

    lock: FileLock
    watch: FileWatch
    incarnation: Incarnation
    writer: Writer
    reader: sqlite3.Connection
    reading: ThreadPoolExecutor
    loop: asyncio.AbstractEventLoop


_CHECKPOINT = "SELECT seq, payload FROM checkpoint WHERE session_id = ?"
_RECORDS = """
    SELECT key, payload FROM record
    WHERE session_id = (SELECT id FROM session WHERE name = ?) AND key IN (SELECT value FROM json_each(?))
"""
_MESSAGES = """
    SELECT seq, message_id, payload FROM message
    WHERE session_id = (SELECT id FROM session WHERE name = ?) AND seq < ifnull(?2, 9223372036854775807)
    ORDER BY seq DESC LIMIT ?3
"""
_SIZES = _MESSAGES.replace("payload", "length(payload)")
_MESSAGE = """
    SELECT payload FROM message WHERE session_id = (SELECT id FROM session WHERE name = ?) AND seq = ?
"""
_INDEX = "SELECT name, owners, queued, due_at FROM session WHERE unfinished"


class SqliteStore(LocalStore):
    """The interface over one file in WAL mode, with a group commit over all sessions.

    An append is acknowledged when its transaction is committed. What that survives is chosen by
    `synchronous`:

    - `"normal"`: the end of the process, however it comes. A power cut or a crash of the operating system
      may take the last commits, never an older one without the later; every log is then suspect until it has a
      new epoch.
    - `"full"`: power cuts too. Each group of appends then waits for the disk.

    Locks keep a second process out. A file that was removed, replaced or cut short under the store makes it
    unavailable: nothing is acknowledged that nobody would find again. Reads have their own thread and
    connection, so that a long one does not hold up commits. Trimmed space is used again, but the file does not
    shrink. Leases and presence are kept in memory: after a restart no node is live.
    """

    longest_tail = 2_048
    """So many batches of all sessions are looked through for those of one, see `sqlite_rows`."""

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Synchronous = "normal",
        clock: Callable[[], int] = wall_clock_ms,
        boot: str | None = None,
    ) -> None:
        """Say where the file lies; `start` opens it, and makes it if need be. `boot` names the time since the
        machine was started; None asks the system.
        """
        super().__init__(clock)
        self.shared = False
        self.durable = True
        self._boot = boot_id() if boot is None else boot
        self._ping: asyncio.Task[None] | None = None
        self._pinged_at = 0.0
        self._gone = False
        self._path = Path(path).resolve()
        self._synchronous: Synchronous = synchronous
        self._open_file: _OpenFile | None = None
        self._pending = 0
        self._payloads: dict[tuple[str, int], bytes] = {}
        """By session and seq, the latest last. The reader's thread fills it, and the event loop takes out of it."""
        self._payloads_lock = threading.Lock()

    @override
    async def start(self) -> None:
        if self._open_file is not None:
            raise StoreError(f"{self._path} is open already")
        # Shielded: a start that was cancelled half-way must not leave the lock with a thread nobody knows.
        opening = asyncio.ensure_future(asyncio.to_thread(self._connect, asyncio.get_running_loop()))
        try:
            file = await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._open_file = await opening
            await self.close()
            raise
        self._open_file, self.left_in_order = file, file.incarnation.left_in_order

    def _connect(self, loop: asyncio.AbstractEventLoop) -> _OpenFile:
        with ExitStack() as undo:
            lock = FileLock(self._path)
            undo.callback(lock.release)
            connection, incarnation = connect_writer(self._path, self._synchronous, self._boot)
            undo.callback(connection.close)
            reader = connect_reader(self._path)
            undo.callback(reader.close)
            with errors_translated(self._path):
                rows = rows_so_far(connection)
            watch = FileWatch(self._path)
            undo.pop_all()
        reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="holdfast-sqlite-reader")
        number = incarnation.number
        writer = Writer(
            connection,
            self._path,
            loop,
            self._committed,
            watch=watch,
            incarnation=number,
            rows=rows,
            longest_tail=self.longest_tail,
        )
        return _OpenFile(lock, watch, incarnation, writer, reader, reading, loop)

    @override
    async def close(self) -> None:
        file, self._open_file = self._open_file, None
        if file is not None:
            # A thread of its own carries this to its end, whether or not the caller is cancelled. Those of the loop may
            # all be busy with what agents have given them.
            closing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="holdfast-sqlite-close")
            try:
                await asyncio.shield(file.loop.run_in_executor(closing, self._disconnect, file))
            finally:
                closing.shutdown(wait=False)

    def _disconnect(self, file: _OpenFile) -> None:
        with ExitStack() as closing, errors_translated(self._path):
            closing.callback(file.lock.release)
            closing.callback(file.writer.stop)
            closing.callback(file.reader.close)
            closing.callback(file.reading.shutdown)

    async def _write(self, operation: Callable[[Transaction], _T]) -> _T:
        """Run `operation` in the next transaction. Cancelled, the caller goes and the operation runs all the
        same.
        """
        file = self._file_with_room()
        outcome: asyncio.Future[_T] = file.loop.create_future()
        self._pending += 1
        file.writer.put((operation, outcome))
        return await outcome

    def _committed(self, committed: Committed) -> None:
        """Take what the writer reports of a transaction, on the event loop."""
        self._pending -= len(committed.outcomes)
        for session, node in committed.lost:
            self._mark(session, node)
        for outcome, result in committed.outcomes:
            if isinstance(outcome, _Flight):
                self._landed(outcome, result)
            elif not outcome.done():
                if isinstance(result, Exception):
                    outcome.set_exception(result)
                else:
                    outcome.set_result(result)

    def _landed(self, flight: _Flight, result: Any) -> None:
        request = flight.requests[len(flight.outcomes)]
        if isinstance(result, Head):
            result = Appended(result, bool(self._marks) and self._contended(request.session, request.node))
        flight.outcomes.append(result)
        if len(flight.outcomes) == len(flight.requests):
            try:
                flight.landed(flight.requests, flight.outcomes)
            except Exception:
                _log.exception("what was appended is not taken note of", sessions=[r.session for r in flight.requests])

    async def _read(self, query: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `query` within one read transaction, which sees the file as it stands at one point."""
        file = self._file()
        return await file.loop.run_in_executor(file.reading, self._query, file, query)

    def _query(self, file: _OpenFile, query: Callable[[sqlite3.Connection], _T]) -> _T:
        reader = file.reader
        with errors_translated(self._path):
            file.watch.check(reader)
            reader.execute("BEGIN")
            try:
                return query(reader)
            finally:
                reader.execute("ROLLBACK")

    def _file_with_room(self) -> _OpenFile:
        file = self._file()
        if self._pending >= MAX_PENDING_WRITES:
            raise StoreUnavailableError(f"{self._pending} writes wait for {self._path}")
        return file

    def _file(self) -> _OpenFile:
        if self._open_file is None:
            raise StoreError(f"{self._path} is not open")
        return self._open_file

    @override
    async def renew(self, node: str, ttl_ms: int, says: LiveNode) -> int:
        now = await super().renew(node, ttl_ms, says)
        # Each second, so that a file that is gone is told of where nobody asks for anything.
        try:
            await self._read(lambda _: None)
        except StoreError as error:
            if not self._gone:
                _log.error("database lost", path=str(self._path), error=str(error))
            self._gone = True
        else:
            self._gone = False
        return now

    @override
    async def ping(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._ping is None or (self._ping.done() and now - self._pinged_at >= PING_SECONDS):
            self._pinged_at = now
            self._ping = asyncio.ensure_future(self._write(Transaction.ping))
            self._ping.add_done_callback(_retrieve)
        await asyncio.shield(self._ping)

    @override
    async def open(self, session: str, new_epoch: str, *, watcher: str | None = None) -> Log:
        current = self._file().incarnation.number

        def query(reader: sqlite3.Connection) -> Log | None:
            log = read_log(reader, session)
            if log is None:
                return None
            kept = reader.execute(_CHECKPOINT, (log.id,)).fetchone()
            checkpoint = Checkpoint(*kept) if kept else None
            batches = tuple(read_batches(reader, log.id, checkpoint.seq if checkpoint else 0))
            return Log(log.head, checkpoint, batches, suspect=log.incarnation != current)

        log = await self._read(query)
        while log is None:
            await self._write(lambda transaction: transaction.create(session, new_epoch))
            log = await self._read(query)
        return log

    @override
    def append_many(self, requests: Sequence[Append], landed: Landed) -> Sequence[Outcome] | None:
        if not requests:
            return []
        try:
            file = self._file_with_room()
        except StoreError as error:
            return [error] * len(requests)
        flight = _Flight(requests, landed)
        self._pending += len(requests)
        file.writer.put(*((_appending(request), flight) for request in requests))
        return None

    @override
    async def heads(self, sessions: Sequence[str], *, watcher: str | None = None) -> list[Head | None]:
        def query(reader: sqlite3.Connection) -> list[Head | None]:
            logs = (read_log(reader, session) for session in sessions)
            return [None if log is None else log.head for log in logs]

        return await self._read(query)

    @override
    async def read(self, session: str, after: int, *, count: int = 1_000) -> Tail:
        def query(reader: sqlite3.Connection) -> Tail:
            log = read_log(reader, session)
            if log is None:
                return Tail(NO_LOG, 0, ())
            return Tail(log.head, log.floor, read_page(reader, log.id, max(after, log.floor), count))

        return await self._read(query)

    @override
    async def new_epoch(self, session: str, expected: Head, epoch: str, seq: int) -> bool:
        if seq < expected.seq:
            raise ValueError(f"an epoch cannot begin at seq {seq}, below its log's {expected.seq}")
        return await self._write(lambda transaction: transaction.new_epoch(session, expected, epoch, seq))

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
        # Copies: the caller may go on with its own while the operation waits.
        archived, kept = tuple(messages), dict(records)
        written = await self._write(
            lambda transaction: transaction.compact(session, epoch, checkpoint, archived, kept, trim_to)
        )
        with self._payloads_lock:
            for message in archived:
                self._payloads.pop((session, message.seq), None)
        return written

    @override
    async def find(self, session: str, keys: Sequence[str]) -> dict[str, bytes]:
        wanted = orjson.dumps(list(keys)).decode()
        return await self._read(lambda reader: dict(reader.execute(_RECORDS, (session, wanted))))

    @override
    async def messages(self, session: str, before: int | None, limit: int) -> list[StoredMessage]:
        def query(reader: sqlite3.Connection) -> list[StoredMessage]:
            rows = reader.execute(_MESSAGES, (session, before, max(0, limit))).fetchall()
            return [StoredMessage(*row) for row in reversed(rows)]

        return await self._read(query)

    @override
    async def message_sizes(self, session: str, before: int | None, limit: int) -> list[StoredSize]:
        def query(reader: sqlite3.Connection) -> list[StoredSize]:
            rows = reader.execute(_SIZES, (session, before, max(0, limit))).fetchall()
            return [StoredSize(*row) for row in reversed(rows)]

        return await self._read(query)

    @override
    async def message_piece(self, session: str, seq: int, start: int, size: int) -> bytes:
        def query(reader: sqlite3.Connection) -> bytes:
            payloads = self._payloads
            with self._payloads_lock:
                payload: bytes | None = payloads.pop((session, seq), None)
            if payload is None:  # read without the lock: the event loop takes it too
                row: tuple[bytes] | None = reader.execute(_MESSAGE, (session, seq)).fetchone()
                payload = b"" if row is None else row[0]
            if start + size < len(payload):  # there is more to come
                left = _PAYLOADS_BYTES - len(payload)
                with self._payloads_lock:
                    while payloads and sum(map(len, payloads.values())) > left:
                        del payloads[next(iter(payloads))]
                    payloads[session, seq] = payload
            return payload[start : start + size]

        return await self._read(query)

    @override
    def listen(self, node: str, listener: Listener) -> Callable[[], None]:
        """There is nobody to hear of: no other process has the file."""
        return _nothing

    @override
    async def unwatch(self, session: str, node: str) -> None:
        """Nothing to do, see `listen`."""

    @override
    async def orphans(self, live: Set[str], now: int) -> dict[str, Owed]:
        def query(reader: sqlite3.Connection) -> dict[str, Owed]:
            entries = {name: read_owed(*owed) for name, *owed in reader.execute(_INDEX)}
            return {session: owed for session, owed in entries.items() if owed.is_orphan(live, now)}

        return await self._read(query)
