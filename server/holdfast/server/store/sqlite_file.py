"""The file of the SQLite store: its schema and format, what keeps it to one process, whether it is still there and
still whole, and what errors mean.
"""

from __future__ import annotations

import fcntl
import math
import os
import sqlite3
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

import structlog

from holdfast.server.errors import StoreError, StoreUnavailableError, UnknownFormatError
from holdfast.server.store.sqlite_rows import OLDER_ROWS, ROWS_SCHEMA
from holdfast.server.store.values import FORMAT

Synchronous = Literal["normal", "full"]

APPLICATION_ID: Final = 0x484F4C44
"""Marks a file as Holdfast's ("HOLD") in SQLite's header; `user_version` beside it carries `FORMAT`."""

_CHECKPOINT_PAGES: Final = 1_000
"""How far SQLite lets the write-ahead log grow before a commit copies it back and waits for the disk. Measured at
10,000 appends a second: 1,000 pages give a p99 of 6 ms, 4,096 one of 19 ms, 16,384 one of 35 ms, and all cost the
same CPU."""

_LOG_HEADER: Final = 32
_FRAME_HEADER: Final = 24
"""In bytes: what stands before the write-ahead log, and before each page in it."""

_SCHEMA: Final = (
    """CREATE TABLE session (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        epoch TEXT NOT NULL,
        base_seq INTEGER NOT NULL,
        base_batch_id TEXT NOT NULL,
        floor INTEGER NOT NULL DEFAULT 0,
        swept INTEGER NOT NULL DEFAULT 0,
        unfinished INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX unfinished_session ON session (name) WHERE unfinished",
    "CREATE INDEX unswept_session ON session (id) WHERE swept < floor",
    *ROWS_SCHEMA,
    """CREATE TABLE checkpoint (
        session_id INTEGER PRIMARY KEY,
        seq INTEGER NOT NULL,
        payload BLOB NOT NULL
    )""",
    """CREATE TABLE message (
        session_id INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        payload BLOB NOT NULL,
        PRIMARY KEY (session_id, seq)
    ) WITHOUT ROWID""",
    """CREATE TABLE record (
        session_id INTEGER NOT NULL,
        key TEXT NOT NULL,
        payload BLOB NOT NULL,
        PRIMARY KEY (session_id, key)
    ) WITHOUT ROWID""",
)
# Made at the first start of a version that knows it, in files of any age.
_INCARNATION_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS incarnation (
        number INTEGER NOT NULL,
        boot TEXT NOT NULL,
        closed INTEGER NOT NULL,
        durable INTEGER NOT NULL,
        pings INTEGER NOT NULL
    )""",
)
_ADDED_COLUMNS: Final = {
    "incarnation": "INTEGER NOT NULL DEFAULT 0",
    "owners": """TEXT NOT NULL DEFAULT '[""]'""",  # what a version without it has left: owed, and by nobody who lives
    "queued": "INTEGER NOT NULL DEFAULT 0",
    "due_at": "INTEGER",
}
_log = structlog.get_logger("holdfast.store")


_LOCK_DESCRIPTORS: Final[set[int]] = set()


def _close_in_child() -> None:
    """A process that was forked off holds no lock: it may outlive the server by a long time."""
    for descriptor in _LOCK_DESCRIPTORS:
        os.close(descriptor)
    _LOCK_DESCRIPTORS.clear()


os.register_at_fork(after_in_child=_close_in_child)


class FileLock:
    """Keeps a database to one process, by OS locks that go with their process, however it dies.

    One lies on the database itself, by whatever path it is reached (a hard link, a mount), and one on a file beside
    it, which says who holds it, and which a database that was replaced still has. That file stays: to remove it could
    take it from under the next holder. Both files are their owner's alone to read.
    """

    def __init__(self, database: Path) -> None:
        """Take the locks, and make the database where there is none. Raises `StoreError` that names the holder."""
        self._descriptors: list[int] = []
        try:
            beside = self._locked(database.with_name(f"{database.name}.lock"), database)
            # SQLite makes its other files with the rights of this one.
            self._locked(database, database)
        except BaseException:
            self.release()
            raise
        os.ftruncate(beside, 0)
        os.pwrite(beside, b"%d\n" % os.getpid(), 0)

    def _locked(self, path: Path, database: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open {path}: {error.strerror}") from error
        self._descriptors.append(descriptor)
        _LOCK_DESCRIPTORS.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = "by another name" if path == database else f"process {_holder(descriptor)}"
            raise StoreError(f"{database} is in use by another Holdfast server ({holder})") from error
        _make_private(path, descriptor)
        return descriptor

    def release(self) -> None:
        """Let the next process have the database. Called once, when SQLite has closed it: to close a file gives up
        what locks SQLite holds on it.
        """
        while self._descriptors:
            descriptor = self._descriptors.pop()
            _LOCK_DESCRIPTORS.discard(descriptor)
            os.close(descriptor)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "?"


def _make_private(path: Path, descriptor: int) -> None:
    """Let nobody but its owner read a file: it holds what people said. The owner alone can do that."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o077:
        try:
            os.fchmod(descriptor, mode & 0o700)
        except PermissionError:
            _log.warning("others may read the database", path=str(path), mode=f"{mode:o}")


class FileWatch:
    """Whether a database is still the file that was opened.

    SQLite goes on with a file that was removed or replaced, and nobody would find what is written to it then.
    """

    def __init__(self, database: Path) -> None:
        """Look at the files of a database that SQLite has opened for writing."""
        self._database = database
        self._files = [database, database.with_name(f"{database.name}-wal")]
        self._known = [self._seen(path) for path in self._files]
        self._pages = math.inf
        """Of the database, when the last transaction began."""

    def began(self, connection: sqlite3.Connection) -> None:
        """The server's only writer has begun a transaction: now nobody else can make the database shorter."""
        (self._pages,) = connection.execute("PRAGMA page_count").fetchone()

    def check(self, connection: sqlite3.Connection) -> None:
        """Raises `StoreUnavailableError` for files that are gone, others, or cut short.

        Other tools may make them shorter, and nothing is lost: `VACUUM` does, and a checkpoint that truncates. So
        SQLite is asked how long they have to be, by way of `connection`, which is in no transaction.
        """
        for number, (path, known) in enumerate(zip(self._files, self._known, strict=True)):
            found = self._seen(path)
            if found[:2] != known[:2]:
                raise StoreUnavailableError(f"{path} was removed or replaced while this server uses it")
            if found[2] < known[2] and not self._is_whole(path, found[2], connection):
                raise StoreUnavailableError(f"{path} was cut short while this server uses it")
            self._known[number] = found

    def _is_whole(self, path: Path, size: int, connection: sqlite3.Connection) -> bool:
        """Whether a file that is shorter than it was holds what SQLite believes that it does."""
        page_size: int
        pages: int
        frames: int
        try:
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            if path == self._database:
                # Shortened to what was in it; what came since may be in the write-ahead log alone.
                (pages,) = connection.execute("PRAGMA page_count").fetchone()
                return size >= min(pages, self._pages) * page_size
            _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error:  # it cannot read what it is asked for
            return False
        return frames <= 0 or self._seen(path)[2] >= _LOG_HEADER + frames * (_FRAME_HEADER + page_size)

    def _seen(self, path: Path) -> tuple[int, int, int]:
        """Device, inode and size. This process never makes these files shorter as long as it has them open."""
        try:
            found = os.stat(path)
        except OSError:
            return (0, 0, 0)
        return (found.st_dev, found.st_ino, found.st_size)


def boot_id() -> str:
    """Names the time since the machine was started; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Incarnation(NamedTuple):
    """What the file says of the processes that had it, as of this one's start."""

    number: int
    """One more with each time that the file may have lost what was committed to it."""
    left_in_order: bool
    """Whether the last one closed it."""


def _begin(connection: sqlite3.Connection, boot: str) -> Incarnation:
    """Note that this process has the file. What was committed is safe from the end of a process, but not from that of
    the machine: one that was started anew over a file that nobody had closed may have found less than was written.

    Durable before anything else is committed: `synchronous` is still full.
    """
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    for statement in _INCARNATION_SCHEMA:
        execute(statement)
    if execute("SELECT 1 FROM sqlite_schema WHERE name = 'batch_of_session'").fetchone():
        for statement in OLDER_ROWS:
            execute(statement)
    columns = [name for (_, name, *_) in execute("PRAGMA table_info(session)")]
    for name, kind in _ADDED_COLUMNS.items():
        if name not in columns:
            execute(f"ALTER TABLE session ADD COLUMN {name} {kind}")
    row = execute("SELECT number, boot, closed, durable FROM incarnation").fetchone()
    number, before, closed, durable = row or (0, boot, 1, 1)
    if not closed and not durable and before != boot:
        number += 1
    execute("DELETE FROM incarnation")
    execute("INSERT INTO incarnation (number, boot, closed, durable, pings) VALUES (?, ?, 0, 0, 0)", (number, boot))
    execute("COMMIT")
    return Incarnation(number, bool(closed))


def translated(error: sqlite3.Error, path: Path) -> StoreError:
    """Say what an error of SQLite means to a user of the store."""
    match error:
        case sqlite3.OperationalError():  # the surroundings: disk full or failing, locked by a foreign tool
            return StoreUnavailableError(f"{path} cannot be used at present: {error}")
        case sqlite3.DatabaseError() if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            return UnknownFormatError(f"{path} is not a Holdfast database")
        case _:
            return StoreError(f"SQLite refuses an operation on {path}: {error}")


@contextmanager
def errors_translated(path: Path) -> Generator[None]:
    """Let no error of SQLite out as such."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, path) from error


def connect_writer(path: Path, synchronous: Synchronous, boot: str) -> tuple[sqlite3.Connection, Incarnation]:
    """Open the database for writing; fill it if it is new, refuse it if its format is not ours.

    The connection is in autocommit mode: transactions are begun and ended by the words themselves.
    """
    with errors_translated(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _check_format(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = full")
            incarnation = _begin(connection, boot)
            connection.execute("UPDATE incarnation SET durable = ?", (synchronous == "full",))
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection, incarnation


def close_writer(connection: sqlite3.Connection) -> None:
    """Note that the file was closed, where it can be noted, and close it."""
    with suppress(sqlite3.Error):
        connection.execute("UPDATE incarnation SET closed = 1")
    connection.close()


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a database that `connect_writer` has opened, for reading alone. With WAL it never waits for the
    writer.
    """
    with errors_translated(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA query_only = ON")
        return connection


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (user_version,) = connection.execute("PRAGMA user_version").fetchone()
    if (application_id, user_version) == (APPLICATION_ID, FORMAT):
        return
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id == APPLICATION_ID:
        raise UnknownFormatError(
            f"{path} has format {user_version}, and this version of Holdfast knows format {FORMAT}"
        )
    if tables or application_id or user_version:
        raise UnknownFormatError(f"{path} is a database of another program")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")
