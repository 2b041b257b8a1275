"""The writing half of the SQLite store: one thread, and one transaction for all that waits."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from holdfast.server.errors import StoreUnavailableError
from holdfast.server.store.sqlite_file import FileWatch, close_writer, translated
from holdfast.server.store.sqlite_rows import delete_until, has_tail, last_until, place_tail, read_log, read_page
from holdfast.server.store.values import (
    CONFLICT_BATCHES,
    NO_LOG,
    NOTHING_OWED,
    Append,
    Batch,
    Checkpoint,
    Conflict,
    Head,
    Owed,
    StoredMessage,
)

_OPERATIONS_PER_TRANSACTION: Final = 4_096
_ROWS_PER_SWEEP: Final = 64
_TRANSACTIONS_PER_SWEEP: Final = 16
_CACHED_LOGS: Final = 20_000
_ROWS_PER_INSERT: Final = (64, 32, 16, 8, 4, 2, 1)

_INSERT_BATCHES: Final = {
    rows: "INSERT INTO batch (row, session_id, last_seq, first_seq, batch_id, payload) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?)"] * rows)
    for rows in _ROWS_PER_INSERT
}


class _KnownLog(NamedTuple):
    """What the writer must know of a log to decide an append."""

    id: int
    head: Head
    owed: Owed


class Transaction:
    """One transaction. Its methods are the write operations, and each sees what those before it did.

    Nothing of it is true before the commit: `changed` is then to be merged into the cache, and `lost` (session, node)
    tells which races were lost.
    """

    def __init__(
        self, connection: sqlite3.Connection, cache: Mapping[str, _KnownLog], incarnation: int, numbers: Iterator[int]
    ) -> None:
        self._connection = connection
        self._incarnation = incarnation
        self._cache = cache
        self._numbers = numbers
        self._rows: list[int | str | bytes] = []  # inserts into `batch` held back, six values each
        self.changed: dict[str, _KnownLog] = {}
        self.lost: list[tuple[str, str]] = []
        self.trimmed = False
        self.written = 0
        """How many rows were added to `batch`."""

    def ping(self) -> None:
        """Write something."""
        self._connection.execute("UPDATE incarnation SET pings = pings + 1")

    def create(self, session: str, epoch: str) -> None:
        """Make an empty log, unless there is one."""
        self._connection.execute(
            "INSERT INTO session (name, epoch, base_seq, base_batch_id, incarnation, owners)"
            " VALUES (?, ?, 0, '', ?, '[]')"
            " ON CONFLICT DO NOTHING",
            (session, epoch, self._incarnation),
        )

    def append(self, request: Append) -> Head | Conflict:
        """Compare and append, in the order that `Store.append` lays down."""
        session, expected, batch, node, owed = request
        log = self._known(session)
        if log is None:
            return Conflict(NO_LOG)
        head = log.head
        if (head.epoch, head.batch_id) == (expected.epoch, batch.batch_id):
            return head
        if head == expected:
            self._rows += (next(self._numbers), log.id, batch.last_seq, batch.first_seq, batch.batch_id, batch.payload)
            if owed is not log.owed and owed != log.owed:
                owners = orjson.dumps(sorted(owed.owners)).decode()
                self._connection.execute(
                    "UPDATE session SET unfinished = ?, owners = ?, queued = ?, due_at = ? WHERE id = ?",
                    (owed != NOTHING_OWED, owners, owed.queued, owed.due_at, log.id),
                )
            head = Head(head.epoch, batch.last_seq, batch.batch_id)
            self.changed[session] = _KnownLog(log.id, head, owed)
            return head
        self.lost.append((session, node))
        return Conflict(head, self._missed(log, expected) if head.epoch == expected.epoch else ())

    def _missed(self, log: _KnownLog, expected: Head) -> tuple[Batch, ...]:
        self.flush()
        (floor,) = self._connection.execute("SELECT floor FROM session WHERE id = ?", (log.id,)).fetchone()
        if floor >= max(1, expected.seq):
            return ()
        return read_page(self._connection, log.id, expected.seq - 1, CONFLICT_BATCHES)

    def new_epoch(self, session: str, expected: Head, epoch: str, seq: int) -> bool:
        """Compare and begin a new epoch."""
        log = self._known(session)
        if log is None or log.head != expected:
            return False
        head = Head(epoch, seq, log.head.batch_id)
        self._connection.execute(
            "UPDATE session SET epoch = ?, base_seq = ?, base_batch_id = ?, incarnation = ? WHERE id = ?",
            (head.epoch, head.seq, head.batch_id, self._incarnation, log.id),
        )
        self.changed[session] = log._replace(head=head)
        return True

    def compact(
        self,
        session: str,
        epoch: str,
        checkpoint: Checkpoint,
        messages: Sequence[StoredMessage],
        records: Mapping[str, bytes],
        trim_to: int,
    ) -> bool:
        """Set the checkpoint, add to the archive, trim.

        Trimming only moves the floor, below which nothing is read. The rows are swept later and in small
        portions: those of a long run lie scattered over as many pages, and to delete them at once would hold
        up everybody.
        """
        log = self._known(session)
        if log is None or log.head.epoch != epoch or checkpoint.seq > log.head.seq:
            return False
        self.flush()
        execute, executemany = self._connection.execute, self._connection.executemany
        execute(
            "INSERT INTO checkpoint (session_id, seq, payload) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET seq = excluded.seq, payload = excluded.payload WHERE excluded.seq >= seq",
            (log.id, checkpoint.seq, checkpoint.payload),
        )
        executemany(
            "INSERT OR REPLACE INTO message (session_id, seq, message_id, payload) VALUES (?, ?, ?, ?)",
            [(log.id, message.seq, message.message_id, message.payload) for message in messages],
        )
        executemany(
            "INSERT OR REPLACE INTO record (session_id, key, payload) VALUES (?, ?, ?)",
            [(log.id, key, payload) for key, payload in records.items()],
        )
        (kept,) = execute("SELECT seq FROM checkpoint WHERE session_id = ?", (log.id,)).fetchone()
        floor = last_until(self._connection, log.id, min(trim_to, kept))
        if floor is not None:
            execute(
                "UPDATE session SET floor = max(floor, ?), base_seq = ?, base_batch_id = ? WHERE id = ?",
                (floor, log.head.seq, log.head.batch_id, log.id),
            )
            self.trimmed = True
        return True

    def flush(self) -> None:
        """Write the batches held back.

        Many rows go into one statement, because each statement gives up the interpreter lock and has to win
        it back from a busy event loop.
        """
        rows, done = self._rows, 0
        self.written += len(rows) // 6
        for count in _ROWS_PER_INSERT:
            values = count * 6
            while len(rows) - done >= values:
                self._connection.execute(_INSERT_BATCHES[count], rows[done : done + values])
                done += values
        rows.clear()

    def _known(self, session: str) -> _KnownLog | None:
        log = self.changed.get(session) or self._cache.get(session)
        if log is None:
            found = read_log(self._connection, session)
            if found is None:
                return None
            log = self.changed[session] = _KnownLog(found.id, found.head, found.owed)
        return log


Operation: TypeAlias = Callable[[Transaction], object]
Request: TypeAlias = tuple[Operation, Any]
"""An operation, and what `Committed` names its outcome by."""


@dataclass(slots=True)
class Committed:
    """What became of a group of operations, to be told on the event loop."""

    outcomes: list[tuple[Any, object]] = field(default_factory=list[Any])
    """In the order that they were put. An outcome that is an exception failed, and left nothing behind."""
    lost: list[tuple[str, str]] = field(default_factory=list[Any])


class Writer:
    """The one thread that writes to a database.

    It takes all operations that wait, runs them in one transaction and reports with one call into the event
    loop. It never waits for more: what arrives during a commit makes the next one, and waiting a millisecond
    for company was measured to save no CPU (at 2,000 and at 10,000 appends a second) and to cost its length
    in latency. Operations take effect in the order they were put. An operation that fails fails alone; a
    transaction that cannot be committed fails all in it with `StoreUnavailableError`, and leaves nothing of any.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        loop: asyncio.AbstractEventLoop,
        report: Callable[[Committed], None],
        *,
        watch: FileWatch,
        incarnation: int,
        rows: tuple[int, int],
        longest_tail: int,
    ) -> None:
        """Start the thread. It owns `connection` until `stop`; `report` is called on `loop`. `watch` raises where
        the file is not what it was: asked before a commit, for that may hide it, and after.
        """
        self._connection = connection
        self._path = path
        self._loop = loop
        self._report = report
        self._watch = watch
        self._incarnation = incarnation
        self._requests: SimpleQueue[Sequence[Request] | None] = SimpleQueue()
        # Nobody else may write to the file, and entries are made only by a commit that succeeded: what is
        # here is what is in the file. After any failure it is emptied, for the outcome of a failed commit is
        # uncertain.
        self._cache: dict[str, _KnownLog] = {}
        # Whether trimmed rows may be left to delete; a process before this one may have left some.
        self._unswept = True
        self._unswept_transactions = 0
        # A number is never given again: a row below the tail that has not been entered would never be found.
        after, last = rows
        self._numbers = itertools.count(last + 1)
        self._tail_rows = last - after
        self._longest_tail = longest_tail
        # A daemon, so that a store never closed cannot keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, name="holdfast-sqlite-writer", daemon=True)
        self._thread.start()

    def put(self, *requests: Request) -> None:
        """Have operations run within one transaction soon; `report` tells what became of them, all at once."""
        self._requests.put(requests)

    def stop(self) -> None:
        """Finish what was put, report it, end the thread and close the connection.

        Blocks; nothing may be put any more.
        """
        self._requests.put(None)
        self._thread.join()
        close_writer(self._connection)

    def _run(self) -> None:
        while (first := self._next()) is not None:
            stopping = False
            requests = list(first)
            try:
                while len(requests) < _OPERATIONS_PER_TRANSACTION:
                    following = self._requests.get_nowait()
                    if following is None:
                        stopping = True
                        break
                    requests += following
            except Empty:
                pass
            committed = Committed()
            self._commit(requests, committed)
            try:
                self._loop.call_soon_threadsafe(self._report, committed)
            except RuntimeError:
                return  # the event loop was closed over an open store: nobody is left to be told
            if stopping:
                return
            if self._tail_rows >= self._longest_tail:
                self._tidy(self._place_tail)

    def _next(self) -> Sequence[Request] | None:
        """Wait for a request, and sweep while there is none; under load, sweep now and then all the same."""
        while self._unswept:
            self._unswept_transactions += 1
            if self._unswept_transactions >= _TRANSACTIONS_PER_SWEEP:
                self._sweep()
            try:
                return self._requests.get_nowait()
            except Empty:
                self._sweep()
        return self._requests.get()

    def _sweep(self) -> None:
        """Delete a portion of the trimmed rows."""
        self._unswept_transactions = 0
        self._unswept = self._tidy(self._delete_trimmed)

    def _delete_trimmed(self) -> bool:
        """Whether there may be more."""
        execute = self._connection.execute
        trimmed = execute("SELECT id, floor FROM session WHERE swept < floor LIMIT 1").fetchone()
        if trimmed is None:
            return False
        session_id, floor = trimmed
        if delete_until(self._connection, session_id, floor, _ROWS_PER_SWEEP) < _ROWS_PER_SWEEP:
            if has_tail(self._connection):  # some may be in there, where they are not found
                self._place_tail()
            else:
                execute("UPDATE session SET swept = floor WHERE id = ?", (session_id,))
        return True

    def _place_tail(self) -> bool:
        place_tail(self._connection)
        self._tail_rows = 0
        return True

    def _tidy(self, work: Callable[[], bool]) -> bool:
        """Do what nobody waits for, in a transaction of its own; False where it failed.

        What fails here fails the next append too, where somebody is told. What is to be deleted is invisible, and the
        next trim or the next start takes it up again; a tail that is too long is looked through all the same.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            done = work()
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back()
            return False
        return done

    def _commit(self, requests: Sequence[Request], committed: Committed) -> None:
        transaction = Transaction(self._connection, self._cache, self._incarnation, self._numbers)
        try:
            self._watch.check(self._connection)
            self._connection.execute("BEGIN IMMEDIATE")
            self._watch.began(self._connection)
            outcomes = [(name, operation(transaction)) for operation, name in requests]
            transaction.flush()
            self._connection.execute("COMMIT")
            self._watch.check(self._connection)
        except Exception as error:
            self._roll_back()
            # What the surroundings caused they would cause again; what one operation caused must not cost
            # the others.
            if len(requests) > 1 and not isinstance(error, (sqlite3.OperationalError, StoreUnavailableError)):
                for request in requests:
                    self._commit([request], committed)
                return
            committed.outcomes += [(name, self._failure(error)) for _, name in requests]
        else:
            self._remember(transaction.changed)
            self._unswept = self._unswept or transaction.trimmed
            self._tail_rows += transaction.written
            committed.outcomes += outcomes
            committed.lost += transaction.lost

    def _roll_back(self) -> None:
        self._cache.clear()
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                # SQLite ends the transaction itself with most errors of the disk. If one were left open, the
                # next BEGIN would fail with StoreUnavailableError and come back to this place.
                return

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            failure: Exception = translated(error, self._path)
            failure.__cause__ = error
            return failure
        return error

    def _remember(self, changed: Mapping[str, _KnownLog]) -> None:
        self._cache.update(changed)
        while len(self._cache) > _CACHED_LOGS:
            del self._cache[next(iter(self._cache))]
