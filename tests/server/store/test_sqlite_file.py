"""The file under a SQLite store: whose it is, whether it is there and can be written, and whether it is whole."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.server.errors import StoreError, StoreUnavailableError
from holdfast.server.store import Appended, Batch, Checkpoint, Head, LiveNode, Log, SqliteStore, StoredMessage
from holdfast.server.store import sqlite as sqlite_module
from holdfast.server.store.sqlite_writer import Transaction
from tests.conformance.harness import OWED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database lies."""
    return tmp_path / "holdfast.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """Yield a store with a session "s" of one event."""
    store = SqliteStore(path, boot="boot-1")
    await store.start()
    await store.open("s", "e1")
    await append(store, 1)
    yield store
    await store.close()


async def append(store: SqliteStore, seq: int, epoch: str = "e1") -> None:
    """Adds an event to session "s"."""
    head = Head(epoch, seq - 1, f"b{seq - 1}" if seq > 1 else "")
    result = await store.append("s", head, Batch(f"b{seq}", seq, seq, b"x"), node="n1", owed=OWED)
    assert isinstance(result, Appended)


def removed(path: Path) -> None:
    """The database and what belongs to it."""
    for file in path.parent.glob("holdfast.db*"):
        file.unlink()


def moved(path: Path) -> None:
    """The database alone."""
    path.rename(path.with_name("elsewhere"))


def replaced(path: Path) -> None:
    """By a copy, as a restored backup is."""
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def cut(path: Path) -> None:
    """To nothing."""
    os.truncate(path, 0)


def log_cut(path: Path) -> None:
    """The write-ahead log to nothing."""
    os.truncate(path.with_name("holdfast.db-wal"), 0)


def log_removed(path: Path) -> None:
    """The write-ahead log."""
    path.with_name("holdfast.db-wal").unlink()


@pytest.mark.parametrize("harm", [removed, moved, replaced, cut, log_cut, log_removed])
async def test_nothing_is_acknowledged_into_a_file_that_is_gone(
    store: SqliteStore, path: Path, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Writes and reads are unavailable, the log says so once, and the store is not ready."""
    harm(path)
    with pytest.raises(StoreUnavailableError, match=r"removed or replaced|cut short"):
        await append(store, 2)
    with pytest.raises(StoreUnavailableError):
        await store.open("s", "e1")
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    for _ in range(3):
        await store.renew("n1", 1_000, LiveNode())
    assert capsys.readouterr().out.count("database lost") == 1


def log_truncated(tool: sqlite3.Connection) -> None:
    """The write-ahead log, by the checkpoint of a tool for backups."""
    assert tool.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)


def vacuumed(tool: sqlite3.Connection) -> None:
    """The database, by somebody who wants the room."""
    tool.execute("DROP TABLE ballast")
    tool.execute("VACUUM")
    tool.execute("PRAGMA wal_checkpoint(PASSIVE)")


@pytest.mark.parametrize("shrink", [log_truncated, vacuumed])
async def test_files_that_another_tool_has_shortened_are_whole(
    store: SqliteStore, path: Path, shrink: Callable[[sqlite3.Connection], None]
) -> None:
    """Nothing is lost by that: reads and writes go on, and a cut is noticed as before."""
    files = [path, path.with_name("holdfast.db-wal")]
    with closing(sqlite3.connect(path, isolation_level=None)) as tool:
        tool.execute("CREATE TABLE ballast (payload)")
        tool.execute("INSERT INTO ballast VALUES (zeroblob(100000))")
        tool.execute("PRAGMA wal_checkpoint(PASSIVE)")
        await append(store, 2)
        sizes = [file.stat().st_size for file in files]
        shrink(tool)
        assert any(file.stat().st_size < size for file, size in zip(files, sizes, strict=True))
        assert (await store.open("s", "x")).head.seq == 2
        await append(store, 3)
        await store.ping()
        assert (await store.open("s", "x")).head.seq == 3
    os.truncate(path, 4096)
    with pytest.raises(StoreUnavailableError, match="cut short"):
        await append(store, 4)


async def test_a_database_that_another_tool_shortens_during_a_commit_is_whole(store: SqliteStore, path: Path) -> None:
    """What that commit adds lies in the write-ahead log at first, and nothing is short of it."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as tool:
        tool.execute("PRAGMA wal_autocheckpoint = 0")
        tool.execute("CREATE TABLE ballast (payload)")
        tool.execute("INSERT INTO ballast VALUES (zeroblob(100000))")
        tool.execute("PRAGMA wal_checkpoint(PASSIVE)")
        await append(store, 2)
        size = os.stat(path).st_size
        tool.execute("DROP TABLE ballast")
        tool.execute("VACUUM")

        def grow(transaction: Transaction) -> None:
            tool.execute("PRAGMA wal_checkpoint(PASSIVE)")
            transaction.create("s" * 50_000, "e1")

        await store._write(grow)  # pyright: ignore[reportPrivateUsage] - a pause within a transaction
        assert os.stat(path).st_size < size
    await append(store, 3)
    assert (await store.open("s", "x")).head.seq == 3


async def test_a_file_that_comes_back_is_used_again(store: SqliteStore, path: Path) -> None:
    """What was moved away and back is the same file."""
    moved(path)
    with pytest.raises(StoreUnavailableError):
        await append(store, 2)
    await store.renew("n1", 1_000, LiveNode())
    path.with_name("elsewhere").rename(path)
    await append(store, 2)
    await store.renew("n1", 1_000, LiveNode())
    assert (await store.open("s", "x")).head.seq == 2


def modes(path: Path) -> dict[str, str]:
    """Who may do what with the files."""
    return {file.name: f"{stat.S_IMODE(file.stat().st_mode):o}" for file in sorted(path.parent.glob("holdfast.db*"))}


async def test_the_files_are_their_owners_alone(store: SqliteStore, path: Path) -> None:
    """Whatever the umask says: database, write-ahead log and lock."""
    before = os.umask(0)
    try:
        await append(store, 2)
    finally:
        os.umask(before)
    assert set(modes(path).values()) == {"600"}
    assert len(modes(path)) == 4
    await store.close()
    os.chmod(path, 0o664)
    await store.start()
    assert modes(path)["holdfast.db"] == "600"


START = """
import asyncio, sys
from holdfast.server.errors import StoreError
from holdfast.server.store import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    try:
        await store.start()
    except StoreError as error:
        print("refused:", error)
    else:
        print("started")
        await store.close()

asyncio.run(main())
"""


def started(path: Path) -> str:
    """What another process says that opens the store."""
    return subprocess.run([sys.executable, "-c", START, str(path)], capture_output=True, text=True, check=True).stdout


async def test_a_second_process_is_refused_by_any_name(store: SqliteStore, path: Path) -> None:
    """By a hard link, by a symbolic one, and after the lock file was removed."""
    assert f"process {os.getpid()}" in await asyncio.to_thread(started, path)
    (path.parent / "other").mkdir()
    link = path.parent / "other" / "holdfast.db"
    os.link(path, link)
    assert "refused" in await asyncio.to_thread(started, link)
    path.with_name("soft.db").symlink_to(path)
    assert "refused" in await asyncio.to_thread(started, path.with_name("soft.db"))
    path.with_name("holdfast.db.lock").unlink()
    assert "refused" in await asyncio.to_thread(started, path)
    await append(store, 2)
    await store.close()
    assert await asyncio.to_thread(started, path) == "started\n"


async def test_a_forked_child_does_not_keep_the_file(store: SqliteStore, path: Path) -> None:
    """A process that an agent has forked off, and that outlives the server, holds no lock."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        os.close(reading)
        await store.close()
        assert await asyncio.to_thread(started, path) == "started\n"
    finally:
        os.close(writing)
        await asyncio.to_thread(os.waitpid, child, 0)


async def test_a_ping_writes(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails where a write would, and at most one a second is made."""
    await store.ping()
    other = sqlite3.connect(path, isolation_level=None)
    pings = "SELECT pings FROM incarnation"
    before = other.execute(pings).fetchone()
    await store.ping()
    assert other.execute(pings).fetchone() == before
    monkeypatch.setattr(sqlite_module, "PING_SECONDS", 0.0)
    store._file().writer._connection.execute("PRAGMA busy_timeout = 0")  # pyright: ignore[reportPrivateUsage]
    await store.ping()
    assert other.execute(pings).fetchone() == (before[0] + 1,)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        await store.ping()
    other.execute("ROLLBACK")
    other.close()
    await store.ping()


async def at_next_start(path: Path, *, boot: str, synchronous: str = "normal") -> tuple[SqliteStore, Log]:
    """The store of the next process, and what it has of session "s"."""
    store = SqliteStore(path, boot=boot, synchronous="full" if synchronous == "full" else "normal")
    await store.start()
    return store, await store.open("s", "x")


def killed(path: Path, to: Path) -> Path:
    """The files as they lay there when a process died that had them open."""
    to.mkdir()
    for file in path.parent.glob("holdfast.db*"):
        shutil.copy(file, to)
    return to / "holdfast.db"


@pytest.mark.parametrize(
    ("boot", "suspect"), [("boot-1", False), ("boot-2", True)], ids=["a killed process", "a power cut"]
)
async def test_what_a_power_cut_may_have_taken_is_suspected(
    store: SqliteStore, path: Path, tmp_path: Path, boot: str, suspect: bool
) -> None:
    """After the machine went down over an open file each log is suspect, until it has a new epoch; once."""
    left = killed(path, tmp_path / "left")
    after, log = await at_next_start(left, boot=boot)
    assert (log.suspect, after.left_in_order) == (suspect, False)
    assert (await after.open("new", "e1")).suspect is False
    if suspect:
        assert (await after.open("s", "x")).suspect is True
        assert await after.new_epoch("s", log.head, "e2", log.head.seq)
        assert (await after.open("s", "x")).suspect is False
    await after.close()
    again, log = await at_next_start(left, boot="boot-3")
    assert (log.suspect, again.left_in_order) == (False, True)
    await again.close()


async def test_one_suspicion_outlives_the_next_process(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """A log that nobody opened since the power cut is still suspect later."""
    left = killed(path, tmp_path / "left")
    after = SqliteStore(left, boot="boot-2")
    await after.start()
    await after.close()
    later, log = await at_next_start(left, boot="boot-2")
    assert log.suspect
    await later.close()


async def test_synced_commits_are_not_suspected(path: Path, tmp_path: Path) -> None:
    """With `synchronous=full` a power cut takes nothing."""
    store = SqliteStore(path, boot="boot-1", synchronous="full")
    await store.start()
    await store.open("s", "e1")
    await append(store, 1)
    left = killed(path, tmp_path / "left")
    await store.close()
    after, log = await at_next_start(left, boot="boot-2", synchronous="full")
    assert not log.suspect
    await after.close()


async def test_a_file_of_an_earlier_version_is_taken_over(path: Path) -> None:
    """One without a word of whose it was is made to say it, its logs are as good as they were, and what is owed in
    them is owed by nobody who lives.
    """
    store = SqliteStore(path)
    await store.start()
    await store.open("s", "e1")
    await append(store, 1)
    await store.open("over", "e1")
    await store.close()
    old = sqlite3.connect(path)
    old.execute("DROP TABLE incarnation")
    for column in ("incarnation", "owners", "queued", "due_at"):
        old.execute(f"ALTER TABLE session DROP COLUMN {column}")
    old.commit()
    old.close()
    again, log = await at_next_start(path, boot="boot-2")
    assert (log.head.epoch, log.suspect) == ("e1", False)
    assert sorted(await again.orphans({"n1"}, 0)) == ["s"]
    over = await again.append("over", Head("e1", 0, ""), Batch("b", 1, 1, b""), node="n1", owed=OWED)
    assert isinstance(over, Appended)
    assert sorted(await again.orphans(frozenset(), 0)) == ["over", "s"]
    await again.close()


async def test_a_torn_end_is_left_out(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """Of a write-ahead log that ends in the middle of a commit the whole commits are there, and no half one."""
    for seq in range(2, 30):
        await append(store, seq)
    left = killed(path, tmp_path / "left")
    wal = left.with_name("holdfast.db-wal")
    os.truncate(wal, wal.stat().st_size * 2 // 3 + 17)
    after, log = await at_next_start(left, boot="boot-1")
    assert 0 < log.head.seq < 29
    assert [batch.batch_id for batch in log.batches] == [f"b{seq}" for seq in range(1, log.head.seq + 1)]
    await append(after, log.head.seq + 1)
    await after.close()


async def test_checkpoint_and_archive_survive_too(store: SqliteStore) -> None:
    """Everything that was acknowledged is there again after a close."""
    message = StoredMessage(1, "m", b"m")
    assert await store.compact("s", "e1", Checkpoint(1, b"c"), messages=[message], records={"k": b"r"}, trim_to=0)
    await store.close()
    await store.start()
    assert (await store.open("s", "x")).checkpoint == Checkpoint(1, b"c")
    assert await store.messages("s", None, 5) == [message]
    assert await store.find("s", ["k"]) == {"k": b"r"}
    with pytest.raises(StoreError):
        await store.start()
