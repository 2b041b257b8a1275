"""What a node that goes down waits for, what it ends, and what it leaves to the next one."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.server.agents.agent import Agent, AgentFunction
from holdfast.server.agents.run import Run
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import settled

PATIENCE_SECONDS = 10
"""A test that waits longer than this has failed."""


async def _asks(run: Run) -> None:
    answer = await run.ask("input", prompt="well?")
    await run.text(str(answer.value))


async def _works(run: Run) -> None:
    await run.text(f"{run.attempt} ")
    await asyncio.Event().wait()


async def _town(h: Cluster, **agents: Agent) -> None:
    """One more node with these agents, which is number 1."""
    await h.start({**agents})


async def test_a_run_that_waits_for_a_person_does_not_hold_a_drain_up() -> None:
    """There is nothing to wait for: it ends as cancelled by the shutdown at once, and the drain is over."""
    async with cluster() as h:
        await _town(h, puppet=Agent("puppet", _asks))
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.requested", runId="r1")
        draining = asyncio.create_task(h.nodes[1].drain(600_000))
        await h.clock.pass_ms(100, 20)
        assert draining.done()
        ended = h.of("r1", "run.ended")[0]
        assert (ended["reason"], ended["cause"]) == ("cancelled", "shutdown")


async def test_a_run_that_waits_may_be_answered_while_others_are_drained_for() -> None:
    """It goes on, and is then waited for like them."""
    async with cluster() as h:
        await _town(h, asks=Agent("asks", _asks), puppet=Agent("puppet", h.puppet))
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await device.send("send", id="r2", text="go", agent="puppet", whenBusy="alongside")
        request = (await device.wire.event("run.requested", runId="r1"))["request"]
        call = await h.puppet.call()
        draining = asyncio.create_task(h.nodes[1].drain(600_000))
        await h.clock.pass_ms(1_000)
        assert not draining.done()
        answered = await device.send("answer", id="a1", runId="r1", requestId=request["id"], value=7)
        assert answered["outcome"] == "accepted"
        call.end()
        await h.clock.pass_ms(200)
        assert draining.done()
        assert [h.of(run_id, "run.ended")[0]["reason"] for run_id in ("r1", "r2")] == ["completed", "completed"]
        assert h.text("r1") == "7"


@pytest.mark.parametrize("agent", [_asks, _works])
async def test_what_a_crash_would_have_kept_an_orderly_stop_keeps(agent: AgentFunction) -> None:
    """A run of a restartable agent is left as it is, waiting or working, and the next process goes on with it."""
    async with cluster() as h:
        restartable = Agent("puppet", agent, restartable=True)
        await _town(h, puppet=restartable)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await settled()
        draining = asyncio.create_task(h.nodes[1].drain(5_000))
        await h.clock.pass_ms(5_100, 100)
        assert draining.done()
        assert h.of("r1", "run.ended") == []
        device.leave()
        await h.release()
        await h.nodes[1].stop()
        await h.store.release(h.nodes[1].node)
        assert h.of("r1", "run.ended") == h.of("r1", "run.resolved") == [], "nor by its last breath"
        await h.start({"puppet": restartable})
        await settled()
        assert [event["attempt"] for event in h.of("r1", "run.started")] == [1, 2]
        late = await h.device("late", number=2)
        if agent is _asks:
            first, second = (event["request"]["id"] for event in h.of("r1", "run.requested"))
            stale = await late.send("answer", id="a1", runId="r1", requestId=first, value=1)
            assert stale["outcome"] == "expired"
            fresh = await late.send("answer", id="a2", runId="r1", requestId=second, value=2)
            assert fresh["outcome"] == "accepted"
            assert (await late.wire.event("run.ended", runId="r1"))["reason"] == "completed"
        else:
            assert h.text("r1") == "1 2 "


async def test_only_what_the_next_process_cannot_go_on_with_is_ended() -> None:
    """Beside a run that is ended by the drain, one that is restartable stays."""
    async with cluster() as h:
        await _town(h, stays=Agent("stays", _works, restartable=True), goes=Agent("goes", _works))
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await device.send("send", id="r2", text="go", agent="goes", whenBusy="alongside")
        await settled()
        draining = asyncio.create_task(h.nodes[1].drain(1_000))
        await h.clock.pass_ms(2_000, 20)
        assert draining.done()
        assert h.of("r1", "run.ended") == []
        assert h.of("r2", "run.ended")[0]["cause"] == "shutdown"


async def test_a_drain_ends_in_its_time_beside_an_agent_that_ignores_its_stop() -> None:
    """A second after its end it waits no more for what it has ended itself."""
    let_go: list[bool] = []

    async def deaf(run: Run) -> None:
        while not let_go:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", deaf)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await settled()
        draining = asyncio.create_task(h.nodes[0].drain(1_000))
        await h.clock.pass_ms(1_980, 20)
        assert not draining.done()
        await h.clock.pass_ms(60, 20)
        assert draining.done()
        assert h.of("r1", "run.ended")[0]["cause"] == "shutdown"
        let_go.append(True)


@pytest.mark.parametrize("silent", ["append", "renew", "release", "observe"])
async def test_a_silent_store_holds_up_no_stop(silent: str) -> None:
    """Whatever it does not answer, with a run that works and a subscriber who watches, the stop has its time."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.pause(silent)
        call.say("one")
        if silent == "observe":
            device.leave()
        await h.clock.pass_ms(1_000)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await h.nodes[0].stop(0.2)
        assert call.ended.is_set()
        await settled()
        assert not [task for task in asyncio.all_tasks() if task.get_name() in ("session s", "close s")]


@pytest.mark.parametrize("restartable", [True, False])
async def test_a_run_that_was_stopped_is_waited_for(restartable: bool) -> None:
    """It waited for a person, and cleans up now: its settling is not left to the next process."""
    clean = asyncio.Event()

    async def agent(run: Run) -> None:
        try:
            await run.ask("input", prompt="?")
        finally:
            await clean.wait()

    async with cluster() as h:
        await _town(h, puppet=Agent("puppet", agent, restartable=restartable))
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.requested")
        await device.send("cancel", id="k1", runId="r1")
        draining = asyncio.create_task(h.nodes[1].drain(3_000))
        await h.clock.pass_ms(3_500)
        assert not draining.done()
        clean.set()
        await settled()
        await h.clock.pass_ms(100, 20)
        assert draining.done()
        assert h.of("r1", "run.settled")[0]["confirmed"] is True


async def test_a_run_that_was_answered_is_drained_for() -> None:
    """It waits for nobody any more."""
    go_on = asyncio.Event()

    async def agent(run: Run) -> None:
        await run.ask("input", prompt="?")
        await go_on.wait()

    async with cluster() as h:
        await _town(h, puppet=Agent("puppet", agent))
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        request = (await device.wire.event("run.requested"))["request"]
        await device.send("answer", id="a1", runId="r1", requestId=request["id"], value=7)
        draining = asyncio.create_task(h.nodes[1].drain(3_000))
        await h.clock.pass_ms(2_000)
        assert not draining.done()
        go_on.set()
        await h.clock.pass_ms(200)
        assert draining.done()
        assert h.of("r1", "run.ended")[0]["reason"] == "completed"
