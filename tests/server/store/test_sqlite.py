"""What is special to the SQLite store: its file outlives it, is used by one, and may fail."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.server.errors import StoreError, StoreUnavailableError, UnknownFormatError
from holdfast.server.store import (
    FORMAT,
    Append,
    Appended,
    Batch,
    Checkpoint,
    Head,
    LiveNode,
    Outcome,
    SqliteStore,
    StoredMessage,
)
from holdfast.server.store import sqlite as sqlite_module
from holdfast.server.store.sqlite_writer import Transaction, Writer
from tests.conformance.harness import OWED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database lies."""
    return tmp_path / "holdfast.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """Yield a store with an empty session "s"."""
    store = SqliteStore(path)
    await store.start()
    await store.open("s", "e1")
    yield store
    await store.close()


def _head(seq: int) -> Head:
    """After that many calls of `_append`."""
    return Head("e1", seq, f"b{seq}" if seq else "")


async def _append(store: SqliteStore, seq: int, payload: bytes = b"", session: str = "s") -> Appended:
    batch = Batch(f"b{seq}", seq, seq, payload)
    result = await store.append(session, _head(seq - 1), batch, node="n1", owed=OWED)
    assert isinstance(result, Appended)
    return result


class _Hold:
    """Holds the writer's thread within a transaction, so that what is asked meanwhile waits."""

    def __init__(self, store: SqliteStore) -> None:
        self._entered = asyncio.Event()
        self._leave = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(store._write(self._stand))  # pyright: ignore[reportPrivateUsage]

    def _stand(self, _: Transaction) -> None:
        self._loop.call_soon_threadsafe(self._entered.set)
        assert self._leave.wait(30), "the test never released the writer"

    async def __aenter__(self) -> None:
        await self._entered.wait()

    async def __aexit__(self, *_: object) -> None:
        self._leave.set()
        await self._task


async def test_everything_written_survives_reopening(store: SqliteStore, path: Path) -> None:
    """A store opened again has log, checkpoint, archive, index and head; nodes and observers are gone."""
    await store.renew("n1", 60_000, LiveNode())
    for seq in (1, 2, 3):
        await _append(store, seq, b"%d" % seq)
    message = StoredMessage(1, "m1", b"m")
    await store.compact("s", "e1", Checkpoint(2, b"c"), messages=[message], records={"r": b"r"}, trim_to=2)
    await store.open("t", "e1")
    await store.new_epoch("t", Head("e1", 0, ""), "e2", 5)
    before = await store.open("s", "x")
    await store.close()
    assert sorted(os.listdir(path.parent)) == ["holdfast.db", "holdfast.db.lock"]

    again = SqliteStore(path)
    await again.start()
    assert await again.open("s", "x") == before
    assert (await again.read("s", 0)).floor == 2
    assert await again.messages("s", None, 9) == [message]
    assert await again.find("s", ["r"]) == {"r": b"r"}
    assert sorted(await again.orphans(frozenset(), 0)) == ["s"]
    assert await again.head("t") == Head("e2", 5, "")
    assert await again.live() == {}
    assert await _append(again, 4) == Appended(Head("e1", 4, "b4"), contended=False)
    await again.close()


_WRITING_PROCESS = """
import asyncio, sys
from holdfast.server.store import Batch, Head, NOTHING_OWED, SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.start()
    async def write(session):
        head = (await store.open(session, "e1")).head
        for seq in range(1, 1_000_000):
            batch = Batch(f"b{seq}", seq, seq, b"x" * 100)
            head = (await store.append(session, head, batch, node="n", owed=NOTHING_OWED)).head
            print(session, seq, flush=True)
    await asyncio.gather(*(write(f"s{number}") for number in range(5)))

asyncio.run(main())
"""


async def test_a_killed_process_loses_nothing_acknowledged(path: Path) -> None:
    """After kill -9 in mid-write every acknowledged append is there, without a gap, and the lock is free."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITING_PROCESS, str(path), stdout=subprocess.PIPE, env={**os.environ}
    )
    assert process.stdout is not None
    acknowledged: dict[str, int] = {}
    for _ in range(300):
        session, seq = (await process.stdout.readline()).split()
        acknowledged[session.decode()] = int(seq)
    process.send_signal(signal.SIGKILL)
    for line in (await process.stdout.read()).splitlines(keepends=True):
        if line.endswith(b"\n"):
            session, seq = line.split()
            acknowledged[session.decode()] = int(seq)
    assert await process.wait() == -signal.SIGKILL

    store = SqliteStore(path)
    await store.start()
    assert len(acknowledged) == 5
    for name, last in acknowledged.items():
        log = await store.open(name, "x")
        assert log.head.seq >= last
        assert [batch.last_seq for batch in log.batches] == list(range(1, log.head.seq + 1))
    await store.close()


async def test_a_second_process_is_refused(store: SqliteStore, path: Path) -> None:
    """Whoever opens a file in use is told so, with the process that has it, and disturbs nothing."""
    script = (
        "import asyncio, sys\nfrom holdfast.server.errors import StoreError\n"
        "from holdfast.server.store import SqliteStore\n"
        "try:\n    asyncio.run(SqliteStore(sys.argv[1]).start())\n"
        "except StoreError as error:\n    print(error)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(path), stdout=subprocess.PIPE, env={**os.environ}
    )
    said, _ = await process.communicate()
    assert said.decode().strip() == f"{path} is in use by another Holdfast server (process {os.getpid()})"
    await _append(store, 1)


async def test_a_second_store_in_this_process_is_refused(store: SqliteStore, path: Path) -> None:
    """One process cannot open a file twice either, under whatever name, until the first lets go."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    second = SqliteStore(link)
    with pytest.raises(StoreError, match="in use by another Holdfast server"):
        await second.start()
    with pytest.raises(StoreError, match="open already"):
        await store.start()
    await store.close()
    await second.start()
    await second.close()


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _make(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


async def test_another_format_is_refused(store: SqliteStore, path: Path) -> None:
    """A file of a later version is not touched, and its lock not kept."""
    await store.close()
    _make(path, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(UnknownFormatError, match=f"has format {FORMAT + 1}"):
        await SqliteStore(path).start()
    _make(path, f"PRAGMA user_version = {FORMAT}")
    await store.start()
    assert await store.head("s") == Head("e1", 0, "")


@pytest.mark.parametrize("statement", ["CREATE TABLE x (y)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"])
async def test_a_database_of_another_program_is_refused(path: Path, statement: str) -> None:
    """A database that is not Holdfast's is left as it is."""
    _make(path, statement)
    before = _content(path)
    with pytest.raises(UnknownFormatError, match="another program"):
        await SqliteStore(path).start()
    assert _content(path) == before


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """Any other file is left as it is."""
    _overwrite(path, b"not a database at all\n" * 100)
    with pytest.raises(UnknownFormatError, match="not a Holdfast database"):
        await SqliteStore(path).start()
    assert _content(path).startswith(b"not a database at all")


async def test_a_damaged_file_is_a_store_error(store: SqliteStore, path: Path) -> None:
    """Damage within the file comes out as a StoreError and never as an error of SQLite."""
    for seq in range(1, 200):
        await _append(store, seq, b"x" * 500)
    await store.close()
    content = _content(path)
    _overwrite(path, content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StoreError):
        await store.start()


async def test_damage_that_comes_later_is_a_store_error(store: SqliteStore, path: Path) -> None:
    """Damage within an open file comes out as a StoreError where it is met."""
    for seq in range(1, 200):
        await _append(store, seq, b"x" * 500)
    await store.close()
    await store.start()
    content = _content(path)
    _overwrite(path, content[:8192].ljust(len(content), b"\xff"))
    with pytest.raises(StoreError) as caught:
        await store.read("s", 0)
    assert not isinstance(caught.value, StoreUnavailableError)


async def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """A file that cannot be made is a StoreError with its path."""
    with pytest.raises(StoreError, match=r"cannot open .*missing.*No such file"):
        await SqliteStore(tmp_path / "missing" / "x.db").start()


async def test_a_full_disk_is_unavailable_and_then_over(store: SqliteStore) -> None:
    """All that waited fails as unavailable, adds nothing, and can be repeated once there is room."""
    connection = store._file().writer._connection  # pyright: ignore[reportPrivateUsage]
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    for session in "abc":
        await store.open(session, "e1")
    connection.execute(f"PRAGMA max_page_count = {pages}")
    async with _Hold(store):
        waiting = [
            asyncio.ensure_future(_append(store, 1, b"x" * 100_000, session)) for session in ("s", "a", "b", "c")
        ]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 4
    assert await store.head("s") == Head("e1", 0, "")
    connection.execute("PRAGMA max_page_count = 1000000")
    for session in ("s", "a", "b", "c"):
        assert (await _append(store, 1, b"x" * 100_000, session)).head.seq == 1
    assert len((await store.open("s", "x")).batches) == 1


async def test_a_failed_commit_leaves_no_head_behind(store: SqliteStore, path: Path) -> None:
    """When the commit itself fails, the next append is decided by what is in the file."""
    await _append(store, 1)
    connection = store._file().writer._connection  # pyright: ignore[reportPrivateUsage]
    # A deferred foreign key that is violated lets every statement pass and fails the COMMIT.
    connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    connection.execute("PRAGMA foreign_keys = ON")

    def violate(_: Transaction) -> None:
        connection.execute("INSERT INTO child VALUES (1)")

    async with _Hold(store):
        bad = asyncio.ensure_future(store._write(violate))  # pyright: ignore[reportPrivateUsage]
        good = asyncio.ensure_future(_append(store, 2))
        await asyncio.sleep(0)
    with pytest.raises(StoreError):
        await bad
    assert (await good).head.seq == 2
    assert (await _append(store, 3)).head.seq == 3
    assert [batch.last_seq for batch in (await store.open("s", "x")).batches] == [1, 2, 3]


async def test_an_operation_that_fails_costs_its_neighbours_nothing(store: SqliteStore) -> None:
    """In one transaction with a failing append, the others are written, and only that one fails."""
    await store.open("t", "e1")
    too_large = Batch("big", 1, 2**63, b"")
    async with _Hold(store):
        first = asyncio.ensure_future(_append(store, 1))
        failing = asyncio.ensure_future(store.append("t", _head(0), too_large, node="n1", owed=OWED))
        second = asyncio.ensure_future(_append(store, 2))
        await asyncio.sleep(0)
    with pytest.raises(OverflowError):
        await failing
    assert (await first).head.seq == 1
    assert (await second).head.seq == 2
    assert await store.head("t") == Head("e1", 0, "")
    assert (await _append(store, 1, session="t")).head.seq == 1


async def test_close_finishes_what_waits(store: SqliteStore, path: Path) -> None:
    """Appends asked for before the close are written and acknowledged."""
    async with _Hold(store):
        waiting = [asyncio.ensure_future(_append(store, seq)) for seq in range(1, 51)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
    await closing
    assert [result.head.seq for result in await asyncio.gather(*waiting)] == list(range(1, 51))
    await store.close()
    with pytest.raises(StoreError, match="not open"):
        await store.head("s")
    await store.start()
    assert await store.head("s") == Head("e1", 50, "b50")


async def test_a_cancelled_append_is_written_all_the_same(store: SqliteStore) -> None:
    """To cancel a caller while its append waits for the disk does not take the append back."""
    async with _Hold(store):
        waiting = asyncio.ensure_future(_append(store, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert await _append(store, 2) == Appended(Head("e1", 2, "b2"), contended=False)


async def test_a_read_does_not_wait_for_the_writer(store: SqliteStore) -> None:
    """While a transaction is held up, reads answer with what was committed before it."""
    await _append(store, 1)
    async with _Hold(store):
        assert await store.head("s") == Head("e1", 1, "b1")


def _requests(*batches: tuple[str, Batch]) -> list[Append]:
    return [Append(session, _head(0), batch, "n1", OWED) for session, batch in batches]


async def _many(store: SqliteStore, requests: list[Append]) -> list[Outcome]:
    landed: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    assert store.append_many(requests, lambda _, outcomes: landed.set_result(list(outcomes))) is None
    async with asyncio.timeout(10):
        return await landed


async def test_one_append_that_cannot_be_written_costs_the_others_nothing(store: SqliteStore) -> None:
    """Of those asked for together too: it spoils their transaction, and they are written without it."""
    for session in ("t", "u"):
        await store.open(session, "e1")
    fine, too_large = Batch("b1", 1, 1, b""), Batch("b1", 1, 2**63, b"")
    requests = _requests(("s", fine), ("t", too_large), ("u", fine))
    outcomes = await _many(store, requests)
    added = Appended(_head(1), contended=False)
    assert [outcomes[0], outcomes[2]] == [added, added]
    assert isinstance(outcomes[1], OverflowError)
    assert [await store.head(session) for session in "stu"] == [_head(1), _head(0), _head(1)]


async def test_what_taking_note_of_appends_raises_reaches_nobody_else(
    store: SqliteStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is logged, and what was asked for beside it lands."""

    def fails(*_: object) -> None:
        raise RuntimeError("as a test says")

    await store.open("t", "e1")
    async with _Hold(store):
        assert store.append_many(_requests(("s", Batch("b1", 1, 1, b""))), fails) is None
        other = asyncio.ensure_future(_many(store, _requests(("t", Batch("b1", 1, 1, b"")))))
        await asyncio.sleep(0)
    assert await other == [Appended(_head(1), contended=False)]
    assert "as a test says" in "".join(capsys.readouterr())


async def test_appends_that_cannot_be_taken_are_answered_at_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the error: there is no room for more, or the file is not open."""

    def never(*_: object) -> None:
        raise AssertionError("nothing is on its way")

    requests = _requests(("s", Batch("b1", 1, 1, b"")), ("t", Batch("b1", 1, 1, b"")))
    monkeypatch.setattr(sqlite_module, "MAX_PENDING_WRITES", 0)
    outcomes = store.append_many(requests, never)
    assert outcomes is not None
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError, StoreUnavailableError]
    await store.close()
    outcomes = store.append_many(requests, never)
    assert outcomes is not None
    assert [type(outcome) for outcome in outcomes] == [StoreError, StoreError]


async def test_a_slow_read_does_not_hold_up_commits(store: SqliteStore) -> None:
    """Appends are acknowledged while a read stands still."""
    loop, entered, leave = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def stand(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(entered.set)
        assert leave.wait(30), "the test never released the reader"

    reading = asyncio.ensure_future(store._read(stand))  # pyright: ignore[reportPrivateUsage]
    await entered.wait()
    for seq in range(1, 20):
        await _append(store, seq)
    assert not reading.done()
    leave.set()
    await reading


async def test_waiting_writes_are_bounded(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a write fails at once as unavailable; those within it are written."""
    monkeypatch.setattr(sqlite_module, "MAX_PENDING_WRITES", 3)
    async with _Hold(store):
        waiting = [asyncio.ensure_future(_append(store, seq)) for seq in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match="3 writes wait"):
            await _append(store, 3)
    assert [result.head.seq for result in await asyncio.gather(*waiting)] == [1, 2]
    await _append(store, 3)


async def test_more_logs_than_the_cache_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that fell out of memory is read from the file again, trimmed and jumped logs included."""
    monkeypatch.setattr("holdfast.server.store.sqlite_writer._CACHED_LOGS", 2)
    store = SqliteStore(path)
    await store.start()
    names = [f"s{number}" for number in range(6)]
    for name in names:
        await store.open(name, "e1")
    for seq in range(1, 6):
        for name in names:
            assert (await _append(store, seq, session=name)).head.seq == seq
            checkpoint = Checkpoint(seq, b"")
            assert await store.compact(name, "e1", checkpoint, messages=[], records={}, trim_to=seq - seq % 2)
    await store.close()


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
async def test_synchronous_reaches_the_writer(path: Path, synchronous: str, level: int) -> None:
    """What is documented of a power cut rests on this setting of the connection that commits."""
    store = SqliteStore(path, synchronous="full" if synchronous == "full" else "normal")
    await store.start()
    connection = store._file().writer._connection  # pyright: ignore[reportPrivateUsage]
    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.close()


async def test_trimmed_rows_are_unseen_at_once_and_deleted_later(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends between trim and deletion leaves rows that nobody sees and the next one deletes."""

    def leave(writer: Writer) -> None:
        writer._unswept = False  # pyright: ignore[reportPrivateUsage]

    for seq in range(1, 301):
        await _append(store, seq)
    with monkeypatch.context() as unswept:
        unswept.setattr(Writer, "_sweep", leave)
        assert await store.compact("s", "e1", Checkpoint(300, b""), messages=[], records={}, trim_to=290)
        assert [batch.last_seq for batch in (await store.read("s", 0)).batches] == list(range(291, 301))
        await store.close()
    assert _count_batches(path) == 300

    await store.start()
    assert [batch.last_seq for batch in (await store.read("s", 0)).batches] == list(range(291, 301))
    for seq in range(301, 1_301):
        await _append(store, seq)
        if _count_batches(path) <= seq - 290:
            break
    else:
        pytest.fail("a thousand appends have not swept three hundred rows")
    assert (await store.read("s", 0)).floor == 290
    assert (await store.read("s", 290)).batches[0].last_seq == 291


def _count_batches(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM batch").fetchone()
    connection.close()
    return int(count)
