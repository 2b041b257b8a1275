"""Processes come and go: what a dead one leaves, what a drained one does, and what opening a session costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdfast.server.agents.agent import Agent
from holdfast.server.node.node import Node
from holdfast.server.store import SqliteStore
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, FakeClock, Puppet, settled


def _restartable(h: Cluster) -> None:
    h.agents = {"puppet": Agent("puppet", h.puppet, restartable=True)}


async def test_a_run_of_a_dead_process_ends_as_lost_with_its_partial() -> None:
    """The next process ends it; the queue moves on."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.send("send", id="r2", text="then")
        call = await h.puppet.call()
        call.say("partial ")
        await settled()
        await h.kill()
        assert call.ended.is_set()
        assert h.kinds("r1")[-1] == "run.chunk"
        await h.start()
        await settled()
        assert h.of("r1", "run.ended")[0]["reason"] == "lost"
        assert h.kinds("r2")[-1] == "run.started"
        late = await h.device("late", number=1)
        assert late.text("r1") == "partial "
        assert (await h.puppet.call(1)).run.run_id == "r2"


async def test_a_restartable_run_goes_on_with_what_it_had() -> None:
    """Attempt 2 has the parts so far in its messages and numbers on."""
    async with cluster() as h:
        _restartable(h)
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("one ")
        await settled()
        await h.kill(1)
        await h.start(h.agents)
        second = await h.puppet.call(1)
        assert second.run.attempt == 2
        assert second.prompt[-1]["parts"] == [{"kind": "text", "text": "one "}]
        second.say("two")
        second.end()
        late = await h.device("late", number=2)
        await settled()
        assert late.text("r1") == "one two"
        assert [event["part"] for event in h.of("r1", "run.chunk")] == [0, 1]
        assert h.of("r1", "run.ended")[0]["reason"] == "completed"


async def test_a_stopped_run_of_a_dead_process_is_settled_as_not_confirmed() -> None:
    """Its cancel was in the log; whether its agent stopped nobody can say."""
    release = asyncio.Event()

    async def deaf(run: object) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", deaf)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await settled()
        await device.send("cancel", id="k1", runId="r1")
        await settled()
        assert h.kinds("r1")[-1] == "run.ended"
        release.set()
        h.road.down = True
        await settled()
        await h.start()
        await h.store.release(h.nodes[0].node)
        await h.nodes[1].sweep()
        await settled()
        assert h.of("r1", "run.settled")[0]["confirmed"] is False
        h.road.down = False


async def test_a_drain_lets_finish_ends_the_rest_and_leaves_the_queue() -> None:
    """What finishes in time completes, the rest is cancelled by the shutdown, queued runs wait for the next node."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.send("send", id="r2", text="beside", whenBusy="alongside")
        await device.send("send", id="r3", text="then")
        one = await h.puppet.call(0)
        draining = asyncio.create_task(h.nodes[0].drain(5_000))
        await settled()
        assert (await device.send("send", id="r4", text="no"))["code"] == "draining"
        one.end()
        await h.clock.pass_ms(4_000)
        assert h.of("r1", "run.ended")[0]["reason"] == "completed"
        assert h.of("r2", "run.ended") == []
        await h.clock.pass_ms(2_000)
        await draining
        ended = h.of("r2", "run.ended")[0]
        assert (ended["reason"], ended["cause"]) == ("cancelled", "shutdown")
        assert h.kinds("r2")[-1] == "run.settled"
        assert h.kinds("r3") == ["run.queued"]
        await h.kill()
        await h.start()
        assert (await h.puppet.call(2)).run.run_id == "r3"
        assert h.kinds("r3") == ["run.queued", "message", "run.started"]


@pytest.mark.parametrize("shared", [False, True])
async def test_a_queue_whose_agent_is_gone_goes_on(shared: bool) -> None:
    """A process that is alone with its store ends what nobody can run; where there may be others, it waits for them."""
    async with cluster(shared=shared) as h:
        here, gone = Agent("puppet", h.puppet), Agent("gone", h.puppet)
        await h.start({"puppet": here, "gone": gone})
        device = await h.device(number=1)
        await device.send("send", id="r1", text="one")
        await device.send("send", id="r2", text="two", agent="gone")
        await device.send("send", id="r3", text="three")
        await h.puppet.call()
        await h.kill(1)
        await h.start({"puppet": here})
        await h.clock.pass_ms(12_000, 1_000)
        assert h.of("r1", "run.ended")[0]["reason"] == "lost"
        if not shared:
            assert h.of("r2", "run.ended")[0]["cause"] == "unknown_agent"
            assert h.of("r3", "run.started")[0]["node"] == h.nodes[2].node
        else:
            assert h.of("r2", "run.ended") == h.of("r3", "run.started") == []


async def test_a_node_without_the_agent_leaves_the_run_to_one_that_has_it() -> None:
    """The run of a dead node is started again where its agent is, whichever node looks first."""
    async with cluster(shared=True) as h:
        phoenix = Agent("phoenix", h.puppet, restartable=True)
        others = {"puppet": Agent("puppet", h.puppet)}
        await h.start({"phoenix": phoenix, **others})
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go", agent="phoenix")
        await h.puppet.call()
        await h.start(others)
        await h.start({**others, "phoenix": phoenix})
        await h.kill(1)
        await h.clock.pass_ms(11_000, 1_000)
        await h.nodes[2].sweep()
        await h.clock.pass_ms(12_000, 1_000)
        assert h.of("r1", "run.ended") == []
        assert [event["node"] for event in h.of("r1", "run.started")] == [h.nodes[1].node, h.nodes[3].node]


async def test_a_process_that_goes_at_once_leaves_a_restartable_run_to_the_next() -> None:
    """Killed, started and told to stop in one breath: the run is neither lost nor ended, and the one after takes it."""
    async with cluster() as h:
        _restartable(h)
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await h.puppet.call()
        await h.kill(1)
        h.road.pause("open")
        await h.start(h.agents)
        h.nodes[2].accepting = False
        h.road.resume()
        await settled()
        await h.kill(2)
        assert h.of("r1", "run.ended") == []
        await h.start(h.agents)
        await settled()
        assert h.of("r1", "run.started")[-1].items() >= {"attempt": 2, "node": h.nodes[3].node}.items()


async def test_a_run_on_its_way_into_the_log_is_drained_too() -> None:
    """A drain that begins while a start is being appended ends that run as well."""
    async with cluster() as h:
        device = await h.device()
        h.road.pause("append")
        answer = device.ask("send", id="r1", text="go")
        await settled()
        draining = asyncio.create_task(h.nodes[0].drain(1_000))
        await settled()
        h.road.resume()
        assert (await answer)["outcome"] == "started"
        await h.clock.pass_ms(2_000)
        await draining
        assert h.of("r1", "run.ended")[0]["cause"] == "shutdown"


async def test_opening_a_long_session_costs_its_recent_past() -> None:
    """After two hundred runs a new process reads few batches, and still knows what was sent first."""
    async with cluster() as h:
        device = await h.device()
        for number in range(200):
            await device.send("send", id=f"r{number}", text="go")
            call = await h.puppet.call(number)
            call.say("word " * 20)
            call.end()
            await device.wire.event("run.ended", runId=f"r{number}")
            await h.clock.pass_ms(200)
        await h.clock.pass_ms(2_000)
        await h.kill()
        await h.start()
        late = await h.device("late", number=1)
        road = h.roads[1]
        assert road.batches_read <= 10
        assert len(late.messages) == 50
        assert late.reader.transcript.more
        reads = road.batches_read
        again = await late.send("send", id="r3", text="go")
        assert (again["outcome"], again["duplicate"]) == ("started", True)
        assert (await late.send("send", id="r3", text="other"))["code"] == "conflict"
        stop = await late.send("cancel", id="k1", runId="r5")
        assert (stop["outcome"], stop["reason"]) == ("already_ended", "completed")
        assert stop["seq"] == h.of("r5", "run.ended")[0]["seq"]
        assert road.batches_read == reads
        assert road.calls["find"] == 3
        pages = await late.history(late.messages[0]["seq"])
        ids = [message["id"] for page in pages for message in page["messages"]]
        assert len(ids) == len(set(ids)) == 200
        (await h.puppet.call(199)).end()


async def test_history_survives_a_restart_in_a_file(tmp_path: Path) -> None:
    """SQLite: what was finished is there, what was active is lost with its partial kept, sends are remembered."""
    clock, puppet = FakeClock(), Puppet()
    agents = {"puppet": Agent("puppet", puppet)}
    node = Node(SqliteStore(tmp_path / "h.db", clock=clock.now), agents, clock=clock)
    await node.start()
    async with node.open("s") as session:
        device = await Device(session).join()
        await device.send("send", id="r1", text="one")
        (await puppet.call()).say("done")
        (await puppet.call()).end()
        await device.wire.event("run.ended")
        await device.send("send", id="r2", text="two")
        (await puppet.call(1)).say("partial")
        await device.wire.event("run.chunk", runId="r2")
        device.leave()
    await node.stop()

    again = Node(SqliteStore(tmp_path / "h.db", clock=clock.now), agents, clock=clock)
    await again.start()
    async with again.open("s") as session:
        await device.resume(session)
        lost = await device.wire.event("run.ended", runId="r2")
        assert lost["reason"] == "lost"
        late = await Device(session, device="late").join()
        assert (late.text("r1"), late.text("r2")) == ("done", "partial")
        assert late.messages == device.messages
        repeat = await device.send("send", id="r1", text="one")
        assert repeat["duplicate"]
    await again.stop()
