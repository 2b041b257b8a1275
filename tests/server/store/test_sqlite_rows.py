"""Where the batches of a session lie in the file: in the tail, and entered by session."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.server.store import Append, Appended, Batch, Checkpoint, Head, SqliteStore, Tail
from holdfast.server.store.sqlite_rows import ROWS_SCHEMA, delete_until, place_tail, rows_so_far
from tests.conformance.harness import OWED

LONGEST_TAIL = 10


class ShortTail(SqliteStore):
    """A store whose tail is soon entered."""

    longest_tail = LONGEST_TAIL


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database lies."""
    return tmp_path / "holdfast.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """Yield a store with an empty log."""
    store = ShortTail(path)
    await store.start()
    await store.open("s", "e1")
    yield store
    await store.close()


def _head(seq: int) -> Head:
    return Head("e1", seq, f"b{seq}" if seq else "")


async def _append(store: SqliteStore, first: int, last: int, session: str = "s") -> None:
    for seq in range(first, last + 1):
        batch = Batch(f"b{seq}", seq, seq, b"%d" % seq)
        result = await store.append(session, _head(seq - 1), batch, node="n1", owed=OWED)
        assert result == Appended(_head(seq), contended=False)


async def _trim(store: SqliteStore, seq: int, session: str = "s") -> None:
    checkpoint = Checkpoint(seq, b"")
    assert await store.compact(session, "e1", checkpoint, messages=[], records={}, trim_to=seq)


async def _seqs(store: SqliteStore, after: int = 0, session: str = "s") -> list[int]:
    return [batch.last_seq for batch in (await store.read(session, after)).batches]


def _rows(path: Path) -> tuple[int, int, int]:
    """How many rows there are, how many of them are entered, and how long the tail is."""
    connection = sqlite3.connect(path)
    try:
        (rows,) = connection.execute("SELECT count(*) FROM batch").fetchone()
        (placed,) = connection.execute("SELECT count(*) FROM place JOIN batch USING (row)").fetchone()
        (tail,) = connection.execute("SELECT count(*) FROM batch WHERE row > (SELECT after FROM tail)").fetchone()
    finally:
        connection.close()
    return rows, placed, tail


async def test_the_tail_is_entered_before_it_is_long(store: SqliteStore, path: Path) -> None:
    """Each row is in the tail or entered, and is found either way, together with its neighbours."""
    await store.open("t", "e1")
    for seq in range(1, 26):
        await _append(store, seq, seq)
        await _append(store, seq, seq, "t")
        rows, placed, in_tail = _rows(path)
        assert (rows, placed + in_tail) == (2 * seq, 2 * seq)
        assert in_tail <= LONGEST_TAIL
        assert await _seqs(store) == await _seqs(store, session="t") == list(range(1, seq + 1))
        assert await store.head("s") == _head(seq)
        assert (await store.read("s", seq - 1)).batches == (Batch(f"b{seq}", seq, seq, b"%d" % seq),)
    tail = await store.catch_up("s", _head(3), count=4)
    assert isinstance(tail, Tail)
    assert [batch.last_seq for batch in tail.batches] == [4, 5, 6, 7]


async def test_a_batch_that_does_not_end_alone_in_its_commit_is_entered_with_it(store: SqliteStore, path: Path) -> None:
    """A commit may be longer than a tail."""
    sessions = [f"s{number}" for number in range(3 * LONGEST_TAIL)]
    for session in sessions:
        await store.open(session, "e1")
    requests = [Append(session, _head(0), Batch("b1", 1, 1, b""), "n1", OWED) for session in sessions]
    assert store.append_many(requests, lambda _, __: None) is None
    await store.ping()
    await _append(store, 1, 1)
    assert _rows(path)[2] <= LONGEST_TAIL
    assert [await _seqs(store, session=session) for session in sessions] == [[1]] * len(sessions)


async def test_the_next_process_goes_on_with_the_tail(store: SqliteStore, path: Path) -> None:
    """What lay in it is found, counts, and is entered with what comes."""
    await _append(store, 1, LONGEST_TAIL + 5)
    for last in range(LONGEST_TAIL + 6, LONGEST_TAIL + 20):
        await store.close()
        await store.start()
        assert await store.head("s") == _head(last - 1)
        await _append(store, last, last)
        assert await _seqs(store) == list(range(1, last + 1))
    await store.close()
    assert _rows(path)[2] <= LONGEST_TAIL


@pytest.mark.parametrize("count", [3, LONGEST_TAIL, 2 * LONGEST_TAIL + 3])
async def test_what_is_trimmed_leaves_no_row(store: SqliteStore, path: Path, count: int) -> None:
    """Wherever it lies: the writer deletes it while it has nothing else to do, and now and then all the same."""
    await _append(store, 1, count)
    await _trim(store, count)
    for seq in range(count + 1, count + 201):
        await _append(store, seq, seq)
        if _rows(path)[0] == seq - count:
            break
    else:
        pytest.fail("two hundred appends have not swept what was trimmed")
    assert await _seqs(store, count) == list(range(count + 1, seq + 1))


def test_no_row_has_the_number_of_one_that_is_gone() -> None:
    """It would lie before the tail without having been entered, and never be found."""
    connection = sqlite3.connect(":memory:")
    for statement in ROWS_SCHEMA:
        connection.execute(statement)
    assert rows_so_far(connection) == (0, 0)
    insert = "INSERT INTO batch (row, session_id, last_seq, first_seq, batch_id, payload) VALUES (?, 1, ?, ?, '', x'')"
    connection.executemany(insert, [(row, row, row) for row in range(1, 6)])
    assert rows_so_far(connection) == (0, 5)
    place_tail(connection)
    assert delete_until(connection, 1, 9, 100) == 5
    assert rows_so_far(connection) == (5, 5)
    place_tail(connection)
    assert rows_so_far(connection) == (5, 5)
    connection.close()


async def test_a_file_with_an_index_by_session_is_taken_over(store: SqliteStore, path: Path) -> None:
    """As versions before this one wrote it: every batch is there, and the log goes on."""
    await _append(store, 1, 15)
    await _trim(store, 4)
    await store.close()
    old = sqlite3.connect(path)
    old.executescript(
        "CREATE TABLE old (session_id INTEGER NOT NULL, last_seq INTEGER NOT NULL, first_seq INTEGER NOT NULL,"
        " batch_id TEXT NOT NULL, payload BLOB NOT NULL);"
        "INSERT INTO old SELECT session_id, last_seq, first_seq, batch_id, payload FROM batch ORDER BY row;"
        "DROP TABLE batch; DROP TABLE place; DROP TABLE tail; ALTER TABLE old RENAME TO batch;"
        "CREATE UNIQUE INDEX batch_of_session ON batch (session_id, last_seq)"
    )
    old.close()
    await store.start()
    assert await store.head("s") == _head(15)
    await _append(store, 16, 30)
    assert await _seqs(store, 4) == list(range(5, 31))
    assert _rows(path)[2] <= LONGEST_TAIL
