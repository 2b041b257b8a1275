"""Requests, deadlines, abandoned runs, and how sends meet a busy session."""

from __future__ import annotations

import pytest

from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from holdfast.server.session.ports import Answer
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import settled

_DAY_MS = 86_400_000


class Asker:
    """An agent that asks once, and keeps what it was told."""

    def __init__(self, expires_ms: int | None = None) -> None:
        self.expires_ms = expires_ms
        self.told: list[Answer] = []

    async def __call__(self, run: Run) -> None:
        """The agent function."""
        self.told.append(await run.ask("input", prompt="how many?", expires_ms=self.expires_ms))


def _with(h: Cluster, asker: Asker) -> None:
    h.nodes[0].agents = {"puppet": Agent("puppet", asker)}


async def test_a_request_is_answered_once_by_any_device() -> None:
    """The first answer counts, and the second device hears that there was one."""
    async with cluster() as h:
        asker = Asker()
        _with(h, asker)
        one, two = await h.device("d1"), await h.device("d2")
        await one.send("send", id="r1", text="go")
        asked = await one.wire.event("run.requested")
        request_id = asked["request"]["id"]
        answers = [
            one.ask("answer", id="a1", runId="r1", requestId=request_id, value=3),
            two.ask("answer", id="a2", runId="r1", requestId=request_id, value=4),
        ]
        assert [(await answer)["outcome"] for answer in answers] == ["accepted", "already_answered"]
        await one.wire.event("run.ended", reason="completed")
        assert asker.told == [Answer("answered", 3, "ana", "d1")]


async def test_a_request_expires() -> None:
    """At its time it is resolved as expired, and its agent told; an answer after that hears it."""
    async with cluster() as h:
        asker = Asker(5_000)
        _with(h, asker)
        device = await h.device()
        await device.send("send", id="r1", text="go")
        asked = await device.wire.event("run.requested")
        await h.clock.pass_ms(4_900)
        assert asker.told == []
        await h.clock.pass_ms(100)
        assert asker.told == [Answer("expired")]
        late = await device.send("answer", id="a1", runId="r1", requestId=asked["request"]["id"], value=1)
        assert late["outcome"] in ("expired", "already_ended")


async def test_a_waiting_run_is_cancelled_without_an_answer() -> None:
    """A stop while a person is asked closes the request with the run and adds nothing after its end."""
    async with cluster() as h:
        asker = Asker()
        _with(h, asker)
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.requested")
        await device.send("cancel", id="k1", runId="r1")
        await device.wire.event("run.settled")
        assert h.kinds("r1")[-3:] == ["run.requested", "run.ended", "run.settled"]
        assert asker.told == []


@pytest.mark.parametrize("set_by_ms", [-3_600_000, 3_600_000])
async def test_a_clock_that_is_set_moves_no_deadline(set_by_ms: int) -> None:
    """Whatever the wall clock is set to, a run ends after as long as was given; times never go back."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go", deadlineMs=600_000)
        call = await h.puppet.call()
        h.clock.set_wall(set_by_ms)
        call.say("word ")
        device.leave()
        await device.resume()
        await h.clock.pass_ms(599_000, 1_000)
        assert h.of("r1", "run.ended") == []
        await device.send("send", id="r2", text="short", deadlineMs=2_000, whenBusy="alongside")
        h.clock.set_wall(set_by_ms)
        await h.clock.pass_ms(1_000)
        assert h.of("r1", "run.ended")[0]["cause"] == "deadline"
        assert h.of("r2", "run.ended") == []
        await h.clock.pass_ms(1_000)
        assert h.of("r2", "run.ended")[0]["cause"] == "deadline"
        times = [event["at"] for event in h.events()]
        assert times == sorted(times)


@pytest.mark.parametrize("set_by_ms", [-3_600_000, 3_600_000])
async def test_a_clock_that_is_set_moves_no_expiry_of_a_request(set_by_ms: int) -> None:
    """It can be answered until its time has passed, and not after."""
    async with cluster() as h:
        asker = Asker(5_000)
        _with(h, asker)
        device = await h.device()
        for run_id in ("r1", "r2"):
            await device.send("send", id=run_id, text="go", whenBusy="alongside")
            await device.wire.event("run.requested", runId=run_id)
        h.clock.set_wall(set_by_ms)
        await h.clock.pass_ms(4_900)
        request_id = h.of("r1", "run.requested")[0]["request"]["id"]
        early = await device.send("answer", id="a1", runId="r1", requestId=request_id, value=1)
        assert early["outcome"] == "accepted"
        await h.clock.pass_ms(100)
        assert asker.told == [Answer("answered", 1, "ana", "d1"), Answer("expired")]


async def test_after_a_restart_the_wall_clocks_word_counts() -> None:
    """Nobody knows how long the process was away, but by the clock on the wall."""
    async with cluster() as h:
        h.agents = {"puppet": Agent("puppet", h.puppet, restartable=True)}
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go", deadlineMs=600_000)
        await h.puppet.call()
        await h.kill(1)
        h.clock.set_wall(599_000)
        await h.start(h.agents)
        await settled()
        assert h.kinds("r1")[-1] == "run.started"
        await h.clock.pass_ms(1_000)
        assert h.of("r1", "run.ended")[0]["cause"] == "deadline"


@pytest.mark.parametrize("deadline_ms", [3_000, 3 * _DAY_MS])
async def test_a_deadline_ends_the_run(deadline_ms: int) -> None:
    """From acceptance, whatever goes on, and however long it is."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go", deadlineMs=deadline_ms)
        call = await h.puppet.call()
        step = deadline_ms // 30
        await h.clock.pass_ms(deadline_ms - step, step)
        assert h.of("r1", "run.ended") == []
        await h.clock.pass_ms(step, step)
        ended = h.of("r1", "run.ended")[0]
        assert (ended["reason"], ended["cause"]) == ("expired", "deadline")
        assert call.ended.is_set()
        assert h.kinds("r1")[-1] == "run.settled"


async def test_an_abandoned_run_ends_when_nobody_has_watched_for_the_whole_time() -> None:
    """Somebody who looks in starts the time again."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go", whenAbandoned={"cancelAfterMs": 10_000})
        await h.puppet.call()
        await h.clock.pass_ms(30_000, 1_000)
        assert h.of("r1", "run.ended") == []
        device.leave()
        await settled()
        await h.clock.pass_ms(9_000, 1_000)
        await device.resume()
        device.leave()
        await settled()
        await h.clock.pass_ms(9_000, 1_000)
        assert h.of("r1", "run.ended") == []
        await h.clock.pass_ms(1_000)
        ended = h.of("r1", "run.ended")[0]
        assert (ended["reason"], ended["cause"], ended["by"]) == ("cancelled", "abandoned", "holdfast")


async def test_an_observer_on_another_node_counts_and_is_missed() -> None:
    """A run is not abandoned while somebody watches elsewhere, and is when that has ended, though nobody says so."""
    async with cluster(shared=True) as h:
        await h.start()
        sender, watcher = await h.device("d1"), await h.device("d2", number=1)
        await sender.send("send", id="r1", text="go", whenAbandoned={"cancelAfterMs": 10_000})
        await h.puppet.call()
        sender.leave()
        await settled()
        await h.clock.pass_ms(30_000, 1_000)
        assert h.of("r1", "run.ended") == []
        watcher.leave()
        await settled()
        await h.clock.pass_ms(20_000, 1_000)
        assert h.of("r1", "run.ended")[0]["cause"] == "abandoned"


async def test_a_busy_session_queues_rejects_or_lets_run_alongside() -> None:
    """The modes as they are promised, and promotion of the queue in the append of the terminal."""
    async with cluster() as h:
        device = await h.device()
        assert (await device.send("send", id="r1", text="go"))["outcome"] == "started"
        queued = await device.send("send", id="r2", text="go")
        assert (queued["outcome"], queued["position"]) == ("queued", 1)
        assert (await device.send("send", id="r3", text="go", whenBusy="reject"))["code"] == "busy"
        beside = await device.send("send", id="r4", text="go", whenBusy="alongside")
        assert beside["outcome"] == "started"
        (await h.puppet.call(0)).end()
        ended = await device.wire.event("run.ended", runId="r1")
        started = await device.wire.event("run.started", runId="r2")
        assert started["seq"] == ended["seq"] + 2
        assert started["command"] == "r2"
        assert h.of("r4", "run.ended") == []


async def test_everything_is_let_go_of_after_the_end() -> None:
    """When all has ended and all have left, the session is closed: no task, no timer but the node's own."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go", deadlineMs=60_000)
        (await h.puppet.call()).end()
        await device.wire.event("run.ended")
        device.leave()
        await h.release()
        await h.clock.pass_ms(40_000, 1_000)
        assert h.nodes[0].sessions == {}
        assert h.clock.waiting == 1
        assert not h.puppet.calls[0].stopped_by


async def test_a_session_that_was_only_opened_is_let_go_of_too() -> None:
    """Nothing has to happen in a session for it to be closed."""
    async with cluster() as h:
        await h.session()
        await h.release()
        await h.clock.pass_ms(40_000, 1_000)
        assert h.nodes[0].sessions == {}
