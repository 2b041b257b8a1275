"""Long runs and long answers: what they cost is in proportion to what is new, and nobody else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import thread_time

import pytest

from holdfast.protocol.codec import MSGPACK_CODEC
from holdfast.server.registry import Record
from holdfast.server.session.records import encode_batch
from holdfast.server.settings import SessionSettings
from holdfast.server.store import NO_LOG, Batch, Head, Owed
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled

SMALL = SessionSettings(checkpoint_bytes=20_000)
"""About forty chunks."""


async def talk(h: Cluster, device: Device, words: int, *, run_id: str = "r1") -> None:
    """A run that goes on has said so many words, each of them an event."""
    await device.send("send", id=run_id, text="go")
    call = await h.puppet.call(len(h.puppet.calls))
    for number in range(words):
        call.say(f"{number} ")
        await settled(8)
    await settled()


@asynccontextmanager
async def watched() -> AsyncGenerator[list[float]]:
    """How long the loop was held at a time while the block went on, in CPU time."""
    held: list[float] = []

    async def watch() -> None:
        while True:
            began = thread_time()
            await asyncio.sleep(0)
            held.append(thread_time() - began)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield held
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_opening_costs_the_same_however_long_a_run_has_gone_on() -> None:
    """Checkpoints are written while it goes on, and hold all that a stop, a reader and another attempt need."""
    async with cluster(settings=SMALL) as h:
        device = await h.device()
        await talk(h, device, 500)
        await h.kill()
        await h.start()
        late = await h.device("late", number=1)
        await settled()
        assert h.roads[1].batches_read < 100
        assert late.text("r1") == "".join(f"{number} " for number in range(500))
        assert h.of("r1", "run.ended")[0]["reason"] == "lost"
        assert len(h.of("r1", "run.chunk")) == 500


async def test_what_was_seen_is_kept_though_its_events_were_trimmed() -> None:
    """The log of a run that goes on is trimmed behind the replay window; a stop still cuts where it was seen."""
    async with cluster(settings=SessionSettings(checkpoint_bytes=20_000, replay_window_ms=1_000)) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        seen = 0
        for number in range(400):
            call.say(f"{number} ")
            await h.clock.pass_ms(50)
            if number == 99:
                seen = device.reader.seq
        tail = await h.store.read("s", 0)
        assert tail.floor > seen
        position = {"epoch": device.reader.epoch, "seq": seen}
        await device.send("cancel", id="k1", runId="r1", seen=position)
        late = await h.device("late")
        text = "".join(f"{number} " for number in range(100))
        assert late.text("r1") == device.text("r1") == text


async def test_checkpoints_of_a_long_answer_cost_in_proportion_to_its_log() -> None:
    """Each is written when the log behind the last one weighs twice as much: all together less than the log."""
    async with cluster(settings=SMALL) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        for _ in range(400):
            call.say("x" * 5_000)
            await settled(8)
        await settled()
        assert 3 < len(h.store.checkpoints) < 20
        assert sum(h.store.checkpoints) < 400 * 5_600


async def test_a_checkpoint_that_the_store_does_not_take_holds_up_no_append() -> None:
    """It is tried again later and later, and written when there is room."""
    async with cluster(settings=SMALL) as h:
        device = await h.device()
        for _ in range(1_000):
            h.road.lose("compact", "before")
        await talk(h, device, 200)
        assert len(h.of("r1", "run.chunk")) == 200
        tried = h.road.calls["compact"]
        assert 1 <= tried <= 2
        (await h.puppet.call()).end()
        await h.clock.pass_ms(100_000, 1_000)
        assert h.kinds("r1")[-1] == "run.ended"
        assert h.road.calls["compact"] - tried <= 8
        assert h.store.compactions == 0
        h.road.faults.clear()
        await h.clock.pass_ms(61_000, 1_000)
        assert h.store.compactions == 1
        late = await h.device("late")
        assert late.messages == device.messages


async def append(h: Cluster, head: Head, chunks: int) -> Head:
    """Another process appends so many chunks."""
    for first in range(head.seq + 1, head.seq + chunks, 10):
        records = [
            Record({
                "type": "run.chunk", "seq": seq, "at": h.clock.now(), "runId": "r1", "part": 0, "kind": "text",
                "delta": "word ",
            })
            for seq in range(first, first + 10)
        ]  # fmt: skip
        payload = encode_batch(records, [MSGPACK_CODEC.encode(record.event) for record in records])
        batch = Batch(f"b{first}", first, first + 9, payload)
        await h.store.append("s", head, batch, node="another", owed=Owed(frozenset({"another"})))
        head = Head(head.epoch, first + 9, f"b{first}")
    return head


@pytest.mark.parametrize("compacting", [False, True])
async def test_opening_a_long_log_holds_the_loop_a_little_at_a_time(compacting: bool) -> None:
    """One without a checkpoint too, as it was written before there were any during runs; and so does the next load."""
    settings = SessionSettings() if compacting else SessionSettings(checkpoint_bytes=1_000_000_000)
    async with cluster(shared=True, settings=settings) as h:
        device = await h.device()
        await talk(h, device, 1)
        h.road.deaf = True
        head = await append(h, await h.store.head("s") or NO_LOG, 20_000)
        await h.start()
        async with watched() as held:
            session = await h.session(1)
            await session.settled()
            await append(h, head, 5_000)
            session.store_moved()
            await session.settled()
        assert len(held) > 10
        assert sorted(held)[-2] < 0.05, "the longest is the test's own appending"
        late = await h.device("late", number=1)
        assert len(late.text("r1")) > 100_000
        assert bool(h.store.compactions) is compacting


async def test_a_node_that_missed_very_much_reads_it_in_one_go() -> None:
    """More than it keeps in memory is folded behind what it knows, and reaches the readers that are live."""
    async with cluster(shared=True, settings=SessionSettings(recent_events=50)) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        await talk(h, one, 10)
        h.roads[1].deaf = True
        call = h.puppet.calls[0]
        for number in range(100):
            call.say(f"more {number} ")
            await settled(8)
        await settled()
        reads = h.roads[1].calls["read"]
        h.roads[1].deaf = False
        two.wire.received.clear()
        call.say("last ")
        await settled()
        assert h.roads[1].calls["read"] - reads <= 1
        assert {message["type"] for message in two.wire.received} == {"run.chunk"}
        assert two.text("r1") == one.text("r1")
        call.say("and after")
        await settled()
        assert two.text("r1").endswith("last and after")
