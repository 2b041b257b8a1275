"""What a writer that was overtaken is told: the batches it missed, or that its log is another one."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.server.store import (
    CONFLICT_BATCHES,
    NO_LOG,
    PAGE_BYTES,
    Batch,
    Checkpoint,
    Conflict,
    Diverged,
    Head,
    Store,
    Tail,
    behind,
)
from tests.conformance.harness import OWED, START, Writer


async def _lose(store: Store, expected: Head, batch_id: str = "mine") -> Conflict:
    batch = Batch(batch_id, expected.seq + 1, expected.seq + 1, b"mine")
    result = await store.append("s", expected, batch, node="n2", owed=OWED)
    assert isinstance(result, Conflict)
    return result


async def _fill(writer: Writer, batches: int, count: int = 2, size: int = 3) -> list[Head]:
    return [(await writer.append(f"b{number}", count, size=size)).head for number in range(1, batches + 1)]


async def _trim(writer: Writer, seq: int) -> None:
    checkpoint = Checkpoint(seq, b"")
    assert await writer.store.compact("s", writer.head.epoch, checkpoint, messages=[], records={}, trim_to=seq)


def _ids(batches: tuple[Batch, ...] | list[Batch] | None) -> list[str] | None:
    return None if batches is None else [batch.batch_id for batch in batches]


async def test_a_conflict_begins_with_the_batch_at_the_expected_head(writer: Writer) -> None:
    """Whoever lost a race has what it missed, and sees that it is of its own log."""
    heads = await _fill(writer, 4)
    for number, head in enumerate(heads[:-1], 1):
        conflict = await _lose(writer.store, head)
        assert conflict.head == heads[-1]
        assert _ids(conflict.batches) == [f"b{missed}" for missed in range(number, 5)]
        missed = behind(head, conflict.batches)
        assert missed is not None
        assert missed[0].first_seq == head.seq + 1
    assert _ids((await _lose(writer.store, START)).batches) == ["b1", "b2", "b3", "b4"]


@pytest.mark.parametrize("expected", [Head("e1", 2, "other"), Head("e1", 3, "other"), Head("e1", 4, "b1")])
async def test_a_conflict_shows_that_the_log_is_another(writer: Writer, expected: Head) -> None:
    """A log that was rolled back and overtaken, to the same epoch and seq or beyond, is told from one's own."""
    await _fill(writer, 3)
    conflict = await _lose(writer.store, expected)
    assert conflict.batches
    assert behind(expected, conflict.batches) is None
    assert await writer.store.catch_up("s", expected) == Diverged(writer.head)


async def test_a_conflict_at_the_head_itself_shows_that_the_log_is_another(writer: Writer) -> None:
    """Nothing was missed there: another batch has come to just that seq."""
    await _fill(writer, 3)
    expected = Head("e1", 6, "other")
    conflict = await _lose(writer.store, expected)
    assert _ids(conflict.batches) == ["b3"]
    assert behind(expected, conflict.batches) is None
    assert await writer.store.catch_up("s", expected) == Diverged(writer.head)


async def test_a_lost_reply_is_found_though_others_built_upon_it(writer: Writer) -> None:
    """Whoever repeats a batch that was accepted finds it right behind its head."""
    (head, *_) = await _fill(writer, 1)
    batch = writer.batch("mine")
    await writer.append("mine")
    await writer.append("theirs")
    conflict = await writer.store.append("s", head, batch, node="n1", owed=OWED)
    assert isinstance(conflict, Conflict)
    assert _ids(list(behind(head, conflict.batches) or ())) == ["mine", "theirs"]


async def test_a_lost_reply_cannot_be_told_of_where_it_was_trimmed(writer: Writer) -> None:
    """Built upon and trimmed, a batch is not found; but it is not added again either."""
    (head, *_) = await _fill(writer, 1)
    batch = writer.batch("mine")
    await writer.append("mine")
    await writer.append("theirs")
    await _trim(writer, writer.head.seq - 1)
    conflict = await writer.store.append("s", head, batch, node="n1", owed=OWED)
    assert conflict == Conflict(writer.head)
    assert await writer.store.catch_up("s", head) == Diverged(writer.head)
    assert _ids((await writer.store.read("s", 0)).batches) == ["theirs"]


async def test_a_conflict_is_short_and_the_rest_is_read(writer: Writer) -> None:
    """Whoever missed very much gets the first of it with the conflict, and reads on from there without a gap."""
    heads = await _fill(writer, 2 * CONFLICT_BATCHES + 10, 1)
    conflict = await _lose(writer.store, heads[0])
    assert len(conflict.batches) == CONFLICT_BATCHES
    missed = behind(heads[0], conflict.batches)
    assert missed is not None
    known = Head("e1", missed[-1].last_seq, missed[-1].batch_id)
    rest = await writer.store.catch_up("s", known)
    assert isinstance(rest, Tail)
    assert [batch.last_seq for batch in (*missed, *rest.batches)] == [head.seq for head in heads[1:]]


async def test_a_conflict_of_large_batches_still_tells(writer: Writer) -> None:
    """However large they are, the batch at the expected head comes with the one behind it."""
    heads = await _fill(writer, 3, size=2 * PAGE_BYTES)
    conflict = await _lose(writer.store, heads[0])
    assert _ids(conflict.batches) == ["b1", "b2"]


async def test_a_conflict_with_another_epoch_has_no_batches(writer: Writer) -> None:
    """There is nothing to go on from: the log is to be opened anew."""
    (head, *_) = await _fill(writer, 1)
    assert await writer.store.new_epoch("s", head, "e2", 5)
    assert await _lose(writer.store, head) == Conflict(Head("e2", 5, "b1"))
    assert await writer.store.catch_up("s", head) == Diverged(Head("e2", 5, "b1"))


async def test_a_conflict_with_a_shorter_log_has_no_batches(writer: Writer) -> None:
    """The log lacks what the writer has folded."""
    await _fill(writer, 1)
    ahead = Head("e1", 9, "b9")
    assert await _lose(writer.store, ahead) == Conflict(writer.head)
    assert await writer.store.catch_up("s", ahead) == Diverged(writer.head)


async def test_catching_up_goes_page_by_page_to_the_head(writer: Writer) -> None:
    """Whoever asks again from where the last answer ended gets every batch once, however small the answers are."""
    heads = [START, *await _fill(writer, 7)]
    for count in (1, 2, 5, 100):
        for start in heads:
            known, got = start, list[str]()
            while known != writer.head:
                tail = await writer.store.catch_up("s", known, count=count)
                assert isinstance(tail, Tail)
                assert tail.head == writer.head
                assert 1 <= len(tail.batches) <= count
                got += [batch.batch_id for batch in tail.batches]
                known = Head("e1", tail.batches[-1].last_seq, tail.batches[-1].batch_id)
            assert got == [head.batch_id for head in heads[heads.index(start) + 1 :]]


async def test_catching_up_through_large_batches_always_goes_on(writer: Writer) -> None:
    """An answer that holds the known batch has room for the next one."""
    (head, *_) = await _fill(writer, 3, size=2 * PAGE_BYTES)
    tail = await writer.store.catch_up("s", head)
    assert isinstance(tail, Tail)
    assert _ids(tail.batches) == ["b2"]


async def test_catching_up_at_the_head_finds_nothing(writer: Writer) -> None:
    """Also where there is no batch left to compare with."""
    await _fill(writer, 2)
    assert await writer.store.catch_up("s", writer.head) == Tail(writer.head, 0, ())
    await _trim(writer, 4)
    assert await writer.store.catch_up("s", writer.head) == Tail(writer.head, 4, ())


async def test_catching_up_from_the_seq_that_an_epoch_began_at(writer: Writer) -> None:
    """No batch stands there; the epoch alone says that the log is the same."""
    (head, *_) = await _fill(writer, 1)
    assert await writer.store.new_epoch("s", head, "e2", 7)
    base = writer.head = Head("e2", 7, "b1")
    await writer.append("c1")
    tail = await writer.store.catch_up("s", base)
    assert isinstance(tail, Tail)
    assert _ids(tail.batches) == ["c1"]
    assert _ids((await _lose(writer.store, base)).batches) == ["c1"]


async def test_a_log_trimmed_to_what_is_known_cannot_be_caught_up_with(writer: Writer) -> None:
    """The batch that would tell is gone; from a head that still has its batch it goes on."""
    heads = await _fill(writer, 4)
    await _trim(writer, 4)
    for head in (START, heads[0], heads[1]):
        assert await writer.store.catch_up("s", head) == Diverged(writer.head)
        assert await _lose(writer.store, head) == Conflict(writer.head)
    tail = await writer.store.catch_up("s", heads[2])
    assert isinstance(tail, Tail)
    assert _ids(tail.batches) == ["b4"]


async def test_no_log_cannot_be_caught_up_with(store: Store) -> None:
    """A log that is gone is told as one that is another."""
    assert await store.catch_up("s", START) == Diverged(NO_LOG)
    assert await store.catch_up("s", Head("e1", 4, "b4")) == Diverged(NO_LOG)


async def test_nothing_is_read_beyond_the_head_it_is_read_with(writer: Writer) -> None:
    """Read beside a writer, no answer holds a batch that its own head does not know of."""
    writing = asyncio.create_task(_fill(writer, 60, 1), name="writer")
    while not writing.done():
        before = writer.head
        tail = await writer.store.read("s", 0)
        log = await writer.store.open("s", "e9")
        for head, batches in ((tail.head, tail.batches), (log.head, log.batches)):
            assert head.seq >= before.seq
            assert [batch.last_seq for batch in batches] == list(range(1, head.seq + 1))
        await asyncio.sleep(0)
    await writing
