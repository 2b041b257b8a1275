"""What is done once is over: a hold, a steer that was heard of, a run whose end could not be written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from holdfast.server.registry import Finish
from holdfast.server.store import NO_LOG, Batch, Owed
from tests.support.cluster import cluster
from tests.support.doubles import settled


async def test_one_lost_race_holds_chunks_once() -> None:
    """What comes when the loser has had its turn is written at once, and so is what comes after it."""
    async with cluster(shared=True) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await h.store.append("s", NO_LOG, Batch("late", 1, 1, b""), node="another", owed=Owed(frozenset({"another"})))
        said = ""
        for word in ("one ", "two ", "three "):
            call.say(word)
            await settled()
            said += word
            assert h.text("r1") == said
            await h.clock.pass_ms(500)  # longer than the store remembers who lost
        call.say("four ")
        await settled()
        call.say("five")
        await settled()
        assert h.text("r1") == said + "four five"


async def test_a_steer_that_waits_still_interrupts_after_other_events_were_missed() -> None:
    """It was heard of before another node's events were read: the block that begins then is cut short by it."""
    go_on, interrupted = asyncio.Event(), list[bool]()

    async def agent(run: Run) -> None:
        await go_on.wait()
        async with run.interruptible() as scope:
            await asyncio.Event().wait()
        interrupted.append(scope.interrupted)

    async with cluster(shared=True) as h:
        h.agents = {"own": Agent("own", agent, takes_steers=True)}
        await h.start(h.agents)
        await h.start(h.agents)
        one, two = await h.device("d1", number=1), await h.device("d2", number=2)
        await one.send("send", id="r1", text="go")
        await settled()
        assert (await one.send("steer", id="s1", text="turn", boundary="now"))["outcome"] == "accepted"
        h.roads[1].deaf = True
        await two.send("send", id="r2", text="later")
        one.session.store_moved()
        await settled()
        go_on.set()
        await settled()
        assert interrupted == [True]
        await one.send("cancel", id="k1", runId="r2")


async def test_a_run_whose_end_cannot_be_decided_is_found_by_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody works on it any more: it ends as lost, and the queue behind it goes on."""
    from holdfast.server.session import core as module

    decide = module.decide  # type: ignore[attr-defined]  # what the module imports is replaced where it is used

    def broken(state: Any, work: Any, context: Any) -> Any:
        if isinstance(work, Finish) and work.owner.run_id == "r1":
            raise RuntimeError("a mistake in this program")
        return decide(state, work, context)

    monkeypatch.setattr(module, "decide", broken)
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.send("send", id="r2", text="then")
        (await h.puppet.call()).end()
        assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "lost"
        (await h.puppet.call(1)).end()
        assert (await device.wire.event("run.ended", runId="r2"))["reason"] == "completed"


async def test_a_stopped_run_whose_end_the_store_lost_ends_as_lost() -> None:
    """Its agent was stopped for good, and cleans up: nobody works on the run any more, and the sweep ends it."""
    release = asyncio.Event()

    async def slow(run: Run) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    async with cluster(shared=True) as h:
        h.agents = {"puppet": Agent("puppet", slow)}
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await settled()
        saved = h.store.save()
        await device.send("cancel", id="k1", runId="r1")
        h.store.roll_back(saved)
        device.session.store_moved()
        await h.clock.pass_ms(500)
        release.set()
        await settled()
        assert [event["reason"] for event in h.of("r1", "run.ended")][-1:] == ["lost"]


async def test_an_end_that_is_told_again_changes_nothing() -> None:
    """Its agent has its grace once, and the settling that was due stays due, also where the lease was lost since."""
    release = asyncio.Event()

    async def slow(run: Run) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", slow)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await settled()
        await device.send("cancel", id="k1", runId="r1")
        device.session.workers["r1"].ended(None)
        release.set()
        assert (await device.wire.event("run.settled", runId="r1"))["confirmed"] is True


async def test_what_is_kept_in_memory_of_an_epoch_ends_with_it() -> None:
    """Another node opened a new one far above what is known here: a reader that lags then gets what is behind it."""
    async with cluster(shared=True) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        await one.send("send", id="r1", text="go")
        saved = h.store.save()
        h.road.deaf = True
        for number in range(10):
            await two.send("send", id=f"lost{number}", text="on")
        h.store.roll_back(saved)
        two.session.store_moved()
        await settled()
        assert two.reader.epoch != one.reader.epoch
        one.session.store_moved()
        await settled()
        assert one.reader.epoch == two.reader.epoch
        one.wire.congested = True
        for number in range(3):
            await one.send("send", id=f"new{number}", text="on")
        one.wire.flow()
        await settled()
        assert one.reader.seq == two.reader.seq == h.events()[-1]["seq"]
        h.road.deaf = False
