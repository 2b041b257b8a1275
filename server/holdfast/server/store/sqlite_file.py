"""The file of the SQLite store: its schema and format, the lock that keeps it to one process, and what
errors mean.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from holdfast.server.store.base import FORMAT, StoreError, StoreUnavailable, UnknownFormat

Synchronous = Literal["normal", "full"]

APPLICATION_ID: Final = 0x484F4C44
"""Marks a file as Holdfast's ("HOLD") in SQLite's header; `user_version` beside it carries `FORMAT`."""

_CHECKPOINT_PAGES: Final = 1_000
"""How far SQLite lets the write-ahead log grow before a commit copies it back and waits for the disk. Measured at
10,000 appends a second: 1,000 pages give a p99 of 6 ms, 4,096 one of 19 ms, 16,384 one of 35 ms, and all cost the
same CPU."""

# The head of a log is its last batch, or the base where none is above it: so an append is one insert and no
# update. Only what trims batches or jumps (a compaction, a new epoch) moves the base.
#
# Batches lie in the order of their arrival, with a slim index by session, because a commit writes whole
# pages: ten appends of ten sessions then fill one page and not ten. Measured with 400,000 rows of 200
# sessions, ten per commit: 11 µs of CPU per row, against 31 µs with a table ordered by session.
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
    """CREATE TABLE batch (
        session_id INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        first_seq INTEGER NOT NULL,
        batch_id TEXT NOT NULL,
        payload BLOB NOT NULL
    )""",
    "CREATE UNIQUE INDEX batch_of_session ON batch (session_id, last_seq)",
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


class FileLock:
    """Keeps a database to one process, by an OS lock on a file beside it that goes with its process, however
    it dies.

    The file itself stays: to remove it could take it from under the next holder.
    """

    def __init__(self, database: Path) -> None:
        """Take the lock, or raise `StoreError` that names the process holding it."""
        path = database.with_name(f"{database.name}.lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open {path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreError(f"{database} is in use by another Holdfast server (process {holder or '?'})") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the next process have the database. Called once."""
        os.close(self._descriptor)


def translated(error: sqlite3.Error, path: Path) -> StoreError:
    """Say what an error of SQLite means to a user of the store."""
    match error:
        case sqlite3.OperationalError():  # the surroundings: disk full or failing, locked by a foreign tool
            return StoreUnavailable(f"{path} cannot be used at present: {error}")
        case sqlite3.DatabaseError() if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            return UnknownFormat(f"{path} is not a Holdfast database")
        case _:
            return StoreError(f"SQLite refuses an operation on {path}: {error}")


@contextmanager
def errors_translated(path: Path) -> Generator[None]:
    """Let no error of SQLite out as such."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, path) from error


def connect_writer(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """Open the database for writing; create it if it is new, refuse it if its format is not ours.

    The connection is in autocommit mode: transactions are begun and ended by the words themselves.
    """
    with errors_translated(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _check_format(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection


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
        raise UnknownFormat(f"{path} has format {user_version}, and this version of Holdfast knows format {FORMAT}")
    if tables or application_id or user_version:
        raise UnknownFormat(f"{path} is a database of another program")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")
