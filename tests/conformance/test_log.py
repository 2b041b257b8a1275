"""Opening, reading and renumbering a log."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.server.store import NO_LOG, PAGE_BYTES, Batch, Checkpoint, Head, Log, Store, Tail
from tests.conformance.harness import OWED, Writer


async def test_open_makes_an_empty_log_once(store: Store) -> None:
    """The first to open gives the epoch; whoever opens later finds it."""
    assert await store.head("s") is None
    assert await store.open("s", "e1") == Log(Head("e1", 0, ""), None, ())
    assert await store.open("s", "e2") == Log(Head("e1", 0, ""), None, ())
    assert await store.head("other") is None


async def test_concurrent_opens_agree_on_one_epoch(store: Store) -> None:
    """However many open a new session at once, all see the same epoch."""
    logs = await asyncio.gather(*(store.open("s", f"e{number}") for number in range(10)))
    assert len({log.head.epoch for log in logs}) == 1


async def test_open_returns_all_batches_without_a_checkpoint(writer: Writer) -> None:
    """A log without a checkpoint is opened from its beginning."""
    first, second = await writer.append("b1", 2), await writer.append("b2")
    log = await writer.store.open("s", "e9")
    assert log.checkpoint is None
    assert log.head == second.head
    assert log.batches == (Batch("b1", 1, first.head.seq, b"b1."), Batch("b2", 3, 3, b"b2."))


async def test_open_returns_what_follows_the_checkpoint(writer: Writer) -> None:
    """Only batches that end after the checkpoint come with it, the one that straddles it included."""
    await writer.append("b1", 2)
    await writer.append("b2", 2)
    await writer.append("b3")
    compacted = await writer.store.compact("s", "e1", Checkpoint(3, b"state"), messages=[], records={}, trim_to=0)
    assert compacted
    log = await writer.store.open("s", "e9")
    assert log.checkpoint == Checkpoint(3, b"state")
    assert [batch.batch_id for batch in log.batches] == ["b2", "b3"]
    assert log.head == Head("e1", 5, "b3")


async def test_read_returns_what_ends_after_a_seq(writer: Writer) -> None:
    """The first batch of a tail may begin at or before the seq asked for, never end there."""
    await writer.append("b1", 2)
    await writer.append("b2", 2)
    head = (await writer.append("b3")).head
    ids = {after: [b.batch_id for b in (await writer.store.read("s", after)).batches] for after in range(6)}
    assert ids == {
        0: ["b1", "b2", "b3"],
        1: ["b1", "b2", "b3"],
        2: ["b2", "b3"],
        3: ["b2", "b3"],
        4: ["b3"],
        5: [],
    }
    assert await writer.store.read("s", 5) == Tail(head, 0, ())
    assert await writer.store.read("s", 50) == Tail(head, 0, ())


async def test_read_gives_no_more_than_it_was_asked_for(writer: Writer) -> None:
    """A reader gets whole batches, at most so many, and can go on from the last."""
    for name in ("b1", "b2", "b3"):
        await writer.append(name, 2)
    counts = {count: len((await writer.store.read("s", 0, count=count)).batches) for count in (1, 2, 3, 4)}
    assert counts == {1: 1, 2: 2, 3: 3, 4: 3}
    tail = await writer.store.read("s", 2, count=1)
    assert [batch.batch_id for batch in tail.batches] == ["b2"]
    assert tail.head == writer.head, "it says that there is more"


async def test_large_batches_are_read_in_portions(writer: Writer) -> None:
    """An answer stays small, but never so small that whoever knows its first batch learns nothing; all are reached."""
    for number in range(8):
        await writer.append(f"b{number}", size=PAGE_BYTES // 3)
    await writer.append("large", size=3 * PAGE_BYTES)
    await writer.append("last")
    read: list[str] = []
    seq = 0
    while seq < writer.head.seq:
        tail = await writer.store.read("s", seq)
        assert len(tail.batches) == 2 or sum(len(batch.payload) for batch in tail.batches) <= 2 * PAGE_BYTES
        assert len(tail.batches) >= min(2, writer.head.seq - seq)
        read += [batch.batch_id for batch in tail.batches]
        seq = tail.batches[-1].last_seq
    assert read == [*(f"b{number}" for number in range(8)), "large", "last"]


async def test_read_of_no_log_is_empty(store: Store) -> None:
    """A session without a log reads as one with nothing in it, and is not made by that."""
    assert await store.read("s", 0) == Tail(NO_LOG, 0, ())
    assert await store.head("s") is None


async def test_payloads_come_back_as_they_were(writer: Writer) -> None:
    """Payloads are any bytes, empty and large ones included, and ids any text."""
    payloads = [b"", bytes(range(256)), b"\x00" * 300_000]
    for payload in payloads:
        batch = Batch(f"ü:{len(payload)}", writer.head.seq + 1, writer.head.seq + 1, payload)
        writer.head = (await writer.store.append("s", writer.head, batch, node="n1", owed=OWED)).head
    assert [batch.payload for batch in (await writer.store.open("s", "e1")).batches] == payloads


async def test_a_new_epoch_jumps_and_keeps_the_contents(writer: Writer) -> None:
    """The log goes on above the jump, in the new epoch, with what it had before."""
    head = (await writer.append("b1", 2)).head
    assert await writer.store.new_epoch("s", head, "e2", 10)
    assert await writer.store.head("s") == Head("e2", 10, "b1")
    writer.head = Head("e2", 10, "b1")
    await writer.append("b2")
    log = await writer.store.open("s", "e9")
    assert log.head == Head("e2", 11, "b2")
    assert [(batch.batch_id, batch.first_seq) for batch in log.batches] == [("b1", 1), ("b2", 11)]


@pytest.mark.parametrize(
    "expected", [Head("e1", 1, "b1"), Head("e1", 3, "b1"), Head("e0", 2, "b1"), Head("e1", 2, "b0")]
)
async def test_a_new_epoch_needs_the_head_it_expects(writer: Writer, expected: Head) -> None:
    """A node that misjudges the log does not renumber it."""
    await writer.append("b1", 2)
    assert not await writer.store.new_epoch("s", expected, "e2", 10)
    assert await writer.store.head("s") == Head("e1", 2, "b1")


async def test_of_two_new_epochs_one_wins(writer: Writer) -> None:
    """Two nodes that both begin an epoch agree on the first."""
    head = (await writer.append("b1")).head
    results = await asyncio.gather(*(writer.store.new_epoch("s", head, f"e{n}", 5) for n in (2, 3)))
    assert sorted(results) == [False, True]
    now = await writer.store.head("s")
    assert now == Head("e2" if results[0] else "e3", 5, "b1")


async def test_a_new_epoch_in_place_refuses_the_old_one(writer: Writer) -> None:
    """An epoch may begin at the head itself, and appends of the old epoch conflict from then on."""
    head = (await writer.append("b1")).head
    assert await writer.store.new_epoch("s", head, "e2", 1)
    stale = await writer.store.append("s", head, Batch("x", 2, 2, b""), node="n1", owed=OWED)
    assert stale.head == Head("e2", 1, "b1")
    assert len((await writer.store.read("s", 0)).batches) == 1


async def test_a_new_epoch_never_goes_back(writer: Writer) -> None:
    """To number on below the log's head is a mistake of the caller."""
    head = (await writer.append("b1", 2)).head
    with pytest.raises(ValueError, match="below"):
        await writer.store.new_epoch("s", head, "e2", 1)
    assert await writer.store.head("s") == head


async def test_a_new_epoch_needs_a_log(store: Store) -> None:
    """Where there is no log there is no epoch to replace."""
    assert not await store.new_epoch("s", NO_LOG, "e2", 5)
    assert await store.head("s") is None
