"""Histories that look alike, and what tells them apart."""

from __future__ import annotations

from typing import Any

from holdfast.server.registry import SessionState, compact, fold
from holdfast.server.registry.checkpoint import finished
from holdfast.server.session.records import decode_batch, encoding_checkpoint, encoding_message
from holdfast.server.store import Checkpoint, StoredMessage
from tests.support.cluster import cluster
from tests.support.doubles import Device, settled


async def test_a_log_that_began_anew_below_what_was_seen_is_not_taken_up() -> None:
    """Nobody is taken back: where a store forgot a session and others began it again, a further epoch begins above."""
    async with cluster(shared=True) as h:
        await h.start()
        saved = h.store.save()
        one = await h.device("d1")
        await one.send("send", id="r1", text="mine")
        await settled()
        old = one.cursor()
        assert old is not None
        h.roads[0].deaf = True
        h.store.roll_back(saved)
        two = await h.device("d2", number=1)
        await one.send("cancel", id="k1", runId="r9")
        await h.clock.pass_ms(1_100)
        snapshot = await one.wire.event("snapshot", reset=True)
        assert snapshot["seq"] >= old["seq"]
        assert one.reader.epoch == two.reader.epoch != old["epoch"]


async def test_another_event_in_the_place_of_the_last_one_is_noticed() -> None:
    """A store that lost one event, and was given one by another node since, has lost something: readers are reset."""
    async with cluster(shared=True) as h:
        await h.start()
        one = await h.device("d1")
        await one.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await settled()
        saved = h.store.save()
        h.road.deaf = True
        call.say("mine")
        await settled()
        seen = one.reader.seq
        h.store.roll_back(saved)
        two = await h.device("d2", number=1)
        await two.send("cancel", id="k1", runId="r1")
        assert two.reader.seq == seen
        await h.clock.pass_ms(1_100)
        assert any(message.get("reset") for message in one.wire.received)
        assert one.messages == two.messages


async def test_every_answer_that_is_being_given_is_in_a_snapshot() -> None:
    """Runs alongside each other have an answer each: whoever joins is shown all of them, once."""
    async with cluster() as h:
        one = await h.device("d1")
        for number, run_id in enumerate(("r1", "r2")):
            await one.send("send", id=run_id, text="go", whenBusy="alongside")
            (await h.puppet.call(number)).say(f"of {run_id}")
        await settled()
        two = await h.device("d2")
        assert [two.text(run_id) for run_id in ("r1", "r2")] == ["of r1", "of r2"]
        assert one.messages == two.messages


async def test_a_checkpoint_within_a_batch_counts_its_events_once() -> None:
    """A batch may begin before the checkpoint that a session is opened with: what that stands for is left out."""
    async with cluster(shared=True) as h:
        one = await h.device("d1")
        await one.send("send", id="r1", text="go")
        log = await h.store.open("s", "unused")
        first, second = decode_batch(log.batches[0].payload)
        state = SessionState(log.head.epoch)
        fold(state, first)
        compaction = compact(state, now=h.clock.now(), replay_window_ms=60_000)
        checkpoint = Checkpoint(1, finished(encoding_checkpoint(compaction.checkpoint)))
        message: Any = compaction.messages[0]
        stored = StoredMessage(1, message["id"], finished(encoding_message(message)))
        await h.store.compact("s", log.head.epoch, checkpoint, messages=[stored], records={}, trim_to=0)
        assert (await h.store.open("s", "unused")).batches[0].first_seq == 1 < second.event["seq"]
        await h.start()
        two = await h.device("d2", number=1)
        assert two.messages == one.messages


async def test_what_an_epoch_left_out_is_not_passed_over() -> None:
    """A tail has no gap: who would read across the place of lost events is shown how it stands instead."""
    async with cluster() as h:
        one = await h.device("d1")
        await one.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await settled()
        saved = h.store.save()
        call.say("lost")
        await settled()
        h.store.roll_back(saved)
        await one.send("send", id="r2", text="then", whenBusy="alongside")
        await settled()
        seqs = [event["seq"] for event in h.events()]
        assert seqs[:3] == [1, 2, 4]
        late = await Device(one.session, device="late").join({"epoch": one.reader.epoch, "seq": 0})
        assert late.wire.events == []
        assert (await late.wire.event("snapshot"))["seq"] == seqs[-1]
