"""How a SQLite store begins and ends where something comes in between, and what it knows after a failure."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.server.errors import StoreUnavailableError
from holdfast.server.store import Appended, Batch, Checkpoint, Head, SqliteStore
from holdfast.server.store.sqlite_file import FileLock, FileWatch, connect_writer
from holdfast.server.store.sqlite_writer import Committed, Transaction, Writer
from tests.conformance.harness import OWED

_PATIENCE_SECONDS = 20


async def _append(store: SqliteStore, seq: int) -> Appended:
    expected = Head("e1", seq - 1, f"b{seq - 1}" if seq > 1 else "")
    result = await store.append("s", expected, Batch(f"b{seq}", seq, seq, b""), node="n1", owed=OWED)
    assert isinstance(result, Appended)
    return result


async def test_a_writer_is_stopped_by_a_word_that_waits_behind_a_write(tmp_path: Path) -> None:
    """It is taken together with the write before it: that is done, and then nothing more is waited for."""
    told: list[Committed] = []
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.executescript("CREATE TABLE session (id, floor, swept); CREATE TABLE incarnation (clean, name, pings)")
    path, loop = tmp_path / "x.db", asyncio.get_running_loop()
    writer = Writer(
        connection, path, loop, told.append, watch=FileWatch(path), incarnation=1, rows=(0, 0), longest_tail=9
    )
    entered, go_on = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        entered.set()
        go_on.wait(_PATIENCE_SECONDS)

    writer.put((hold, loop.create_future()))
    assert await asyncio.to_thread(entered.wait, _PATIENCE_SECONDS)
    writer.put((lambda _: None, loop.create_future()))
    writer._requests.put(None)  # pyright: ignore[reportPrivateUsage] - as `stop` does, which waits then
    go_on.set()
    thread = writer._thread  # pyright: ignore[reportPrivateUsage]
    await asyncio.to_thread(thread.join, _PATIENCE_SECONDS)
    assert not thread.is_alive()
    await asyncio.sleep(0)
    assert [len(committed.outcomes) for committed in told] == [1, 1]
    connection.close()


class _DoubtfulCommit:
    """A connection whose next commit takes place, and is reported as failed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.doubtful = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
        """Runs a statement."""
        done = self._connection.execute(statement, *arguments)
        if statement == "COMMIT" and self.doubtful:
            self.doubtful = False
            raise sqlite3.OperationalError("disk I/O error")
        return done


async def test_after_a_failed_commit_the_file_says_where_the_log_is(tmp_path: Path) -> None:
    """The commit took place all the same: repeated, the batch is found, and what follows is appended to it."""
    store = SqliteStore(tmp_path / "x.db")
    await store.start()
    await store.open("s", "e1")
    await _append(store, 1)
    writer: Any = store._file().writer  # pyright: ignore[reportPrivateUsage]
    connection = writer._connection
    writer._connection = _DoubtfulCommit(connection)
    with pytest.raises(StoreUnavailableError):
        await _append(store, 2)
    assert (await _append(store, 2)).head.seq == 2
    assert (await _append(store, 3)).head.seq == 3
    writer._connection = connection
    await store.close()


async def test_a_start_that_is_cancelled_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far it has come: the file is free for the next one."""
    store = SqliteStore(tmp_path / "x.db")
    entered, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        entered.set()
        go_on.wait(_PATIENCE_SECONDS)
        return connect_writer(*arguments)

    monkeypatch.setattr("holdfast.server.store.sqlite.connect_writer", slow)
    starting = asyncio.ensure_future(store.start())
    assert await asyncio.to_thread(entered.wait, _PATIENCE_SECONDS)
    starting.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(starting, return_exceptions=True)
    assert starting.cancelled()
    other = SqliteStore(tmp_path / "x.db")
    await other.start()
    await other.close()


async def test_the_lock_is_let_go_when_the_writer_has_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not before: the next process never meets a write of this one."""
    store, release = SqliteStore(tmp_path / "x.db"), FileLock.release
    await store.start()
    writer: Any = store._file().writer  # pyright: ignore[reportPrivateUsage]
    writing: list[bool] = []

    def released(lock: FileLock) -> None:
        writing.append(writer._thread.is_alive())
        release(lock)

    monkeypatch.setattr(FileLock, "release", released)
    await store.close()
    assert writing == [False]


async def test_trimmed_rows_are_deleted_by_the_process_that_trims_them(tmp_path: Path) -> None:
    """Whatever it has swept before: a trim begins the sweep again."""
    path = tmp_path / "x.db"
    store = SqliteStore(path)
    await store.start()
    await store.open("s", "e1")
    for seq in range(1, 101):
        await _append(store, seq)
    assert await store.compact("s", "e1", Checkpoint(100, b""), messages=[], records={}, trim_to=90)
    for seq in range(101, 201):
        await _append(store, seq)
    await store.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM batch").fetchone() == (110,)
