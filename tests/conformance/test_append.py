"""Compare-and-append: what is added, what is refused, and what a repeat is told."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.server.store import NO_LOG, NOTHING_OWED, Appended, Batch, Conflict, Head, Store
from tests.conformance.harness import OWED, START, Clock, Writer


async def test_append_moves_the_head_to_the_batch(writer: Writer) -> None:
    """An accepted batch is the head, for the writer and for whoever asks."""
    result = await writer.append("b1", 3)
    assert result == Appended(Head("e1", 3, "b1"), contended=False)
    assert await writer.store.head("s") == Head("e1", 3, "b1")


async def test_a_repeat_of_the_last_batch_adds_nothing(writer: Writer) -> None:
    """Whoever lost the reply repeats the call unchanged, is told it is in, and it is in once."""
    batch = writer.batch("b1", 2)
    for _ in range(3):
        result = await writer.store.append("s", START, batch, node="n1", owed=OWED)
        assert result == Appended(Head("e1", 2, "b1"), contended=False)
    assert (await writer.store.read("s", 0)).batches == (batch,)


async def test_a_repeat_after_another_append_conflicts_and_is_found(writer: Writer) -> None:
    """A batch that was built upon conflicts when repeated; it is among the batches of the conflict, and those read."""
    batch = writer.batch("b1")
    await writer.append("b1")
    await writer.append("b2")
    result = await writer.store.append("s", START, batch, node="n1", owed=OWED)
    assert result == Conflict(Head("e1", 2, "b2"), (batch, Batch("b2", 2, 2, b"b2.")))
    assert [found.batch_id for found in (await writer.store.read("s", 0)).batches] == ["b1", "b2"]


@pytest.mark.parametrize(
    "expected", [Head("e1", 1, "b0"), Head("e1", 3, "b2"), Head("e0", 2, "b1"), Head("e1", 2, "b9"), Head("e1", 2, "")]
)
async def test_a_stale_writer_conflicts_and_adds_nothing(writer: Writer, expected: Head) -> None:
    """Another epoch, a head behind, a head ahead, and another batch at the same seq are refused, with the true head."""
    await writer.append("b1", 2)
    stale = Batch("x", expected.seq + 1, expected.seq + 1, b"x")
    result = await writer.store.append("s", expected, stale, node="n2", owed=NOTHING_OWED)
    assert isinstance(result, Conflict)
    assert result.head == Head("e1", 2, "b1")
    assert (await writer.store.open("s", "e2")).batches == (Batch("b1", 1, 2, b"b1."),)
    assert sorted(await writer.store.orphans(frozenset(), 0)) == ["s"]


async def test_the_same_batch_id_in_another_epoch_is_no_repeat(writer: Writer) -> None:
    """A repeat needs the epoch of the log, not only the id of its last batch."""
    await writer.append("b1")
    result = await writer.store.append("s", Head("e0", 0, ""), Batch("b1", 1, 1, b"x"), node="n1", owed=OWED)
    assert result == Conflict(Head("e1", 1, "b1"))


async def test_append_without_a_log_conflicts(store: Store) -> None:
    """An append never makes a log."""
    result = await store.append("s", START, Batch("b", 1, 1, b""), node="n1", owed=OWED)
    assert result == Conflict(NO_LOG)
    assert await store.head("s") is None
    assert sorted(await store.orphans(frozenset(), 0)) == []


@pytest.mark.parametrize(("first", "last"), [(2, 2), (0, 1), (1, 0)])
async def test_a_batch_must_follow_the_expected_head(writer: Writer, first: int, last: int) -> None:
    """A batch with a gap, an overlap or no event is a mistake of the caller and changes nothing."""
    with pytest.raises(ValueError, match="cannot follow"):
        await writer.store.append("s", START, Batch("b", first, last, b""), node="n1", owed=OWED)
    assert await writer.store.head("s") == Head("e1", 0, "")


async def test_a_lost_race_is_told_to_the_winner_for_a_while(writer: Writer, clock: Clock) -> None:
    """An append that meets another node's mark succeeds contended; the mark lasts 200 ms."""
    await writer.append("b1")
    assert isinstance(await writer.store.append("s", START, Batch("x", 1, 1, b""), node="n2", owed=OWED), Conflict)
    assert (await writer.append("b2")).contended
    await clock.pass_ms(100)
    assert (await writer.append("b3")).contended
    await clock.pass_ms(200)
    assert not (await writer.append("b4")).contended


async def test_a_node_does_not_contend_with_itself(writer: Writer) -> None:
    """The loser's own next append is not contended by its own mark, and other sessions not at all."""
    await writer.append("b1")
    lost = await writer.store.append("s", START, Batch("x", 1, 1, b""), node="n1", owed=OWED)
    assert isinstance(lost, Conflict)
    assert not (await writer.append("b2")).contended
    await writer.store.open("other", "e1")
    assert not (await Writer(writer.store, "other", node="n2").append("b1")).contended


async def test_a_repeat_is_told_of_contention_too(writer: Writer) -> None:
    """The reply to a repeated append carries the mark like the first one would have."""
    await writer.append("b1")
    lost = await writer.store.append("s", START, Batch("x", 1, 1, b""), node="n2", owed=OWED)
    assert isinstance(lost, Conflict)
    again = await writer.store.append("s", START, Batch("b1", 1, 1, b"b1."), node="n1", owed=OWED)
    assert again == Appended(Head("e1", 1, "b1"), contended=True)


async def test_concurrent_appends_over_sessions_all_arrive(store: Store) -> None:
    """A hundred sessions append at once, and each log has its own batches and no other."""
    writers = [Writer(store, f"s{number}") for number in range(100)]
    await asyncio.gather(*(store.open(writer.session, "e1") for writer in writers))
    for turn in range(5):
        await asyncio.gather(*(writer.append(f"{writer.session}-{turn}") for writer in writers))
    for writer in writers:
        tail = await store.read(writer.session, 0)
        assert [batch.batch_id for batch in tail.batches] == [f"{writer.session}-{turn}" for turn in range(5)]


async def test_of_two_racing_writers_one_wins_each_seq(store: Store) -> None:
    """Two nodes that race on one session both come through, and the log has no gap and no double."""
    await store.open("s", "e1")
    won: dict[str, list[str]] = {"n1": [], "n2": []}

    async def race(node: str) -> None:
        head = START
        for _ in range(1_000):  # one of two wins each time
            if len(won[node]) == 20:
                return
            batch = Batch(f"{node}-{len(won[node])}", head.seq + 1, head.seq + 1, node.encode())
            result = await store.append("s", head, batch, node=node, owed=OWED)
            if isinstance(result, Appended):
                won[node].append(batch.batch_id)
            head = result.head
            await asyncio.sleep(0)

    await asyncio.gather(race("n1"), race("n2"))
    batches = (await store.read("s", 0)).batches
    assert [batch.last_seq for batch in batches] == list(range(1, 41))
    assert sorted(batch.batch_id for batch in batches) == sorted(won["n1"] + won["n2"])


async def test_a_cancelled_caller_does_not_cancel_the_write(writer: Writer) -> None:
    """The outcome of a cancelled append is unknown to its caller; repeating it tells, and never doubles."""
    batch = writer.batch("b1")
    task = asyncio.create_task(writer.store.append("s", START, batch, node="n1", owed=OWED), name="append")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = await writer.store.append("s", START, batch, node="n1", owed=OWED)
    assert again == Appended(Head("e1", 1, "b1"), contended=False)
    assert (await writer.store.read("s", 0)).batches == (batch,)
