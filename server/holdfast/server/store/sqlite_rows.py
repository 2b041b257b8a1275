"""How the batches of all sessions lie in a file of SQLite, and how those of one are found.

They lie in the order of their arrival, because a commit writes whole pages: ten appends of ten sessions then fill one
page and not ten. An index by session would undo that. So where the rows of a session lie is entered in `place` for some
thousands at once, those of a session next to each other; the rest of the rows, the tail, is looked through. Measured
with 200 sessions, in µs of CPU per row at 1, 10 and 50 rows a commit: 16, 5 and 3, where an index that is kept at every
commit took 25, 9 and 8. A commit that enters the tail takes some 5 ms.

The head of a log is its last batch, or the base where none is above it: so an append is one insert and no update. Only
what trims batches or jumps (a compaction, a new epoch) moves the base.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final, NamedTuple

import orjson

from holdfast.server.store.values import Batch, Head, Owed, page

ROWS_SCHEMA: Final = (
    """CREATE TABLE batch (
        row INTEGER PRIMARY KEY,
        session_id INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        first_seq INTEGER NOT NULL,
        batch_id TEXT NOT NULL,
        payload BLOB NOT NULL
    )""",
    """CREATE TABLE place (
        session_id INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        row INTEGER NOT NULL,
        PRIMARY KEY (session_id, last_seq)
    ) WITHOUT ROWID""",
    "CREATE TABLE tail (after INTEGER NOT NULL)",
    "INSERT INTO tail (after) VALUES (0)",
)
OLDER_ROWS: Final = (
    "ALTER TABLE batch RENAME TO older",
    *ROWS_SCHEMA,
    "INSERT INTO batch (session_id, last_seq, first_seq, batch_id, payload)"
    " SELECT session_id, last_seq, first_seq, batch_id, payload FROM older ORDER BY rowid",
    "DROP TABLE older",
)
"""What makes of a file with an index by session, as versions before this one had it, one with a tail."""

_PLACED: Final = """
    SELECT batch_id, first_seq, place.last_seq, payload FROM place CROSS JOIN batch USING (row)
    WHERE place.session_id = ? AND place.last_seq > ? ORDER BY place.last_seq LIMIT ?
"""
_IN_TAIL: Final = """
    SELECT batch_id, first_seq, last_seq, payload FROM batch
    WHERE row > (SELECT after FROM tail) AND session_id = ? AND last_seq > ? ORDER BY row LIMIT ?
"""
_LAST_PLACED: Final = """
    SELECT place.last_seq, batch_id FROM place CROSS JOIN batch USING (row)
    WHERE place.session_id = ? ORDER BY place.last_seq DESC LIMIT 1
"""
_LAST_IN_TAIL: Final = """
    SELECT last_seq, batch_id FROM batch
    WHERE row > (SELECT after FROM tail) AND session_id = ? ORDER BY row DESC LIMIT 1
"""
_SESSION: Final = """
    SELECT id, epoch, base_seq, base_batch_id, floor, incarnation, owners, queued, due_at FROM session WHERE name = ?
"""


class StoredLog(NamedTuple):
    """What the file says of a log."""

    id: int
    head: Head
    floor: int
    incarnation: int
    owed: Owed


def read_log(connection: sqlite3.Connection, session: str) -> StoredLog | None:
    """The log of a session, if it has one."""
    found = connection.execute(_SESSION, (session,)).fetchone()
    if found is None:
        return None
    session_id, epoch, seq, batch_id, floor, incarnation, *owed = found
    for query in (_LAST_IN_TAIL, _LAST_PLACED):
        last = connection.execute(query, (session_id,)).fetchone()
        if last is not None:
            if last[0] > seq:
                seq, batch_id = last
            break
    return StoredLog(session_id, Head(epoch, seq, batch_id), floor, incarnation, read_owed(*owed))


def read_owed(owners: str, queued: int, due_at: int | None) -> Owed:
    """What the columns of a session say is owed in it."""
    return Owed(frozenset(orjson.loads(owners)), bool(queued), due_at)


def read_batches(connection: sqlite3.Connection, session_id: int, after: int, limit: int = -1) -> Iterator[Batch]:
    """The first batches of a session that end after seq `after`: `limit` of them, or all."""
    for row in connection.execute(_PLACED, (session_id, after, limit)):
        batch = Batch(*row)
        after, limit = batch.last_seq, limit - 1  # never 0 where it was -1: all are wanted then
        yield batch
    for row in connection.execute(_IN_TAIL, (session_id, after, max(-1, limit))):
        yield Batch(*row)


def read_page(connection: sqlite3.Connection, session_id: int, after: int, count: int) -> tuple[Batch, ...]:
    """The batches of a session that end after seq `after`, as one answer holds them."""
    return page(read_batches(connection, session_id, after, count), count)


def last_until(connection: sqlite3.Connection, session_id: int, seq: int) -> int | None:
    """Where the last batch of a session ends that ends at or before `seq`."""
    queries = (
        "SELECT max(last_seq) FROM batch WHERE row > (SELECT after FROM tail) AND session_id = ? AND last_seq <= ?",
        "SELECT max(last_seq) FROM place WHERE session_id = ? AND last_seq <= ?",
    )
    for query in queries:  # what is in the tail is behind what is not
        (last,) = connection.execute(query, (session_id, seq)).fetchone()
        if last is not None:
            return int(last)
    return None


def rows_so_far(connection: sqlite3.Connection) -> tuple[int, int]:
    """The numbers of the row that the tail begins after, and of the last one ever written."""
    (after,) = connection.execute("SELECT after FROM tail").fetchone()
    (last,) = connection.execute("SELECT max(row) FROM batch").fetchone()
    return after, max(after, last or 0)


def has_tail(connection: sqlite3.Connection) -> bool:
    """Whether there are rows that are not in `place`."""
    return connection.execute("SELECT 1 FROM batch WHERE row > (SELECT after FROM tail) LIMIT 1").fetchone() is not None


def place_tail(connection: sqlite3.Connection) -> None:
    """Enter the rows of the tail in `place`; it is empty then. Within a transaction."""
    connection.execute(
        "INSERT INTO place (session_id, last_seq, row) SELECT session_id, last_seq, row FROM batch"
        " WHERE row > (SELECT after FROM tail) ORDER BY session_id, last_seq"
    )
    connection.execute("UPDATE tail SET after = max(after, (SELECT ifnull(max(row), 0) FROM batch))")


def delete_until(connection: sqlite3.Connection, session_id: int, seq: int, limit: int) -> int:
    """Delete the first `limit` batches of a session of those that end at or before `seq`; how many there were.

    Within a transaction. Those of the tail are not found.
    """
    rows = connection.execute(
        "DELETE FROM place WHERE (session_id, last_seq) IN (SELECT session_id, last_seq FROM place"
        " WHERE session_id = ? AND last_seq <= ? ORDER BY last_seq LIMIT ?) RETURNING row",
        (session_id, seq, limit),
    ).fetchall()
    connection.executemany("DELETE FROM batch WHERE row = ?", rows)
    return len(rows)
