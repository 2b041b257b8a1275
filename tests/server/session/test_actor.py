"""The rare ways of a session's actor: what waits while something else goes on, and what it is then decided by."""

from __future__ import annotations

import asyncio

from holdfast.server.registry import Sweep
from holdfast.server.settings import SessionSettings
from holdfast.server.store import NO_LOG, Batch, Owed
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled


async def lose_a_race(h: Cluster) -> None:
    """Another node tries to append to the session, and is too late."""
    await h.store.append("s", NO_LOG, Batch("late", 1, 1, b""), node="another", owed=Owed(frozenset({"another"})))


async def test_a_cancel_that_is_refused_as_another_command_stops_nobody() -> None:
    """Its id was another cancel's: the agent does not hear of it."""
    async with cluster() as h:
        device = await h.device()
        await device.send("cancel", id="k1", runId="r9", ifUnknown="prevent")
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        assert (await device.send("cancel", id="k1", runId="r1"))["code"] == "conflict"
        call.say("on")
        call.end()
        assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
        assert h.text("r1") == "on"


async def test_a_sweep_leaves_alone_what_its_own_batch_starts() -> None:
    """Nobody works on it yet when the batch is decided, and somebody does as soon as it is in the log."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        h.road.pause("append")
        (await h.puppet.call()).say("word")
        await settled()
        sent = device.ask("send", id="r2", text="beside", whenBusy="alongside")
        device.session.chore(Sweep())
        h.road.resume()
        assert (await sent)["outcome"] == "started"
        await settled()
        assert h.kinds("r2")[-1] == "run.started"
        assert h.kinds("r1")[-1] == "run.chunk"


async def test_chunks_that_are_held_after_a_lost_race_go_on_by_themselves() -> None:
    """For the loser's turn they wait, commands do not, and nothing has to happen for them to be written then."""
    async with cluster(shared=True) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await lose_a_race(h)
        call.say("one ")
        await settled()
        call.say("two")
        await settled()
        assert h.text("r1") == "one "
        await device.send("send", id="r2", text="then")
        h.clock.advance(h.settings.contended_hold_ms - 1)
        await settled()
        assert h.text("r1") == "one "
        h.clock.advance(1)
        await settled()
        assert h.text("r1") == "one two"


async def test_a_session_that_is_closed_while_it_holds_writes_what_was_said() -> None:
    """It does not wait for a time that nobody keeps any more."""
    async with cluster(shared=True) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await lose_a_race(h)
        call.say("one ")
        await settled()
        call.say("two")
        await settled()
        async with asyncio.timeout(10):
            await device.session.close()
        assert h.text("r1") == "one two"


async def test_a_chunk_that_was_accepted_and_built_upon_is_in_the_log_once() -> None:
    """Its reply is lost and another node appends behind it: no memory of a command hides a second one."""
    async with cluster(shared=True) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        await one.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.roads[1].deaf = True
        h.road.lose("append", "after")
        call.say("once ")
        await settled()
        await two.send("send", id="r2", text="beside", whenBusy="alongside")
        await h.clock.pass_ms(1_000)
        call.say("more")
        await h.clock.pass_ms(1_000)
        assert h.text("r1") == one.text("r1") == "once more"


async def test_an_old_epoch_that_was_written_on_is_not_taken_up() -> None:
    """The store is rolled back to an epoch that had ended here, and another node writes on beyond our head."""
    async with cluster(shared=True) as h:
        one = await h.device("d1")
        await one.send("send", id="r1", text="one")
        saved = h.store.save()
        first = one.reader.epoch
        h.road.deaf = True
        await one.send("send", id="r2", text="lost")
        h.store.roll_back(saved)
        await one.send("send", id="r3", text="three")
        await settled()
        second = one.reader.epoch
        h.store.roll_back(saved)
        await h.start()
        two = await h.device("d2", number=1)
        for number in range(10):
            await two.send("send", id=f"o{number}", text="on")
        assert (two.reader.epoch, two.reader.seq > one.reader.seq) == (first, True)
        await one.send("send", id="r4", text="four")
        await settled()
        assert len({first, second, one.reader.epoch}) == 3
        h.road.deaf = False


async def test_events_in_memory_are_bounded_by_their_bytes() -> None:
    """However few they are: an older cursor is served from the store."""
    async with cluster(settings=SessionSettings(recent_bytes=2_000)) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        cursor = device.cursor()
        assert cursor is not None
        call = await h.puppet.call()
        for _ in range(30):
            call.say("x" * 200)
            await settled(8)
        reads = h.road.calls["read"]
        late = Device(device.session, device="late")
        late.reader.epoch, late.reader.seq = cursor["epoch"], cursor["seq"]
        await late.join(cursor)
        assert h.road.calls["read"] > reads
        assert late.reader.seq == device.reader.seq


async def test_a_lease_lasts_from_when_it_was_asked_for() -> None:
    """Not from when the store answered, which may have been long after: the agents are stopped in time."""
    async with cluster(shared=True) as h:
        await h.start()
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.pause("renew")
        await h.clock.pass_ms(7_000, 500)
        h.road.resume()
        await settled()
        h.road.pause("renew")
        await h.clock.pass_ms(5_000, 500)
        assert call.ended.is_set()
