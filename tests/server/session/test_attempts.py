"""What an agent sees of its own answer, and what one attempt of a run has to do with the next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from holdfast.server.registry import Sweep
from holdfast.server.settings import SessionSettings
from tests.support.cluster import cluster
from tests.support.doubles import settled


def _shown(parts: list[Any]) -> list[Any]:
    return [part["text"] if part["kind"] == "text" else part["kind"] for part in parts]


@pytest.mark.parametrize("seen", [False, True])
async def test_what_is_written_while_steers_are_taken_stands_where_the_log_has_it(seen: bool) -> None:
    """One task awaits `run.steers()` while another writes: `run.messages` is the log, also where the steer cuts."""
    views: list[list[Any]] = []
    write = asyncio.Event()

    async def agent(run: Run) -> None:
        await run.text("aa ")
        await run.text("bb ")
        await write.wait()
        taking = asyncio.create_task(run.steers())
        await asyncio.sleep(0)
        await run.text("cc ")
        views.append(_shown(run.messages[-1]["parts"]))
        await taking
        await run.text("dd ")
        await run.tool_call("look", {})
        views.append(_shown(run.messages[-1]["parts"]))
        await asyncio.sleep(0.001)
        views.append(_shown(run.messages[-1]["parts"]))

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent, takes_steers=True)}
        h.nodes[0].traits = {name: item.traits for name, item in h.nodes[0].agents.items()}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await settled()
        position = next(event["seq"] for event in h.of("r1", "run.started"))
        cursor = device.cursor()
        assert cursor is not None
        cut = {"seen": {"epoch": cursor["epoch"], "seq": position}} if seen else {}
        await device.send("steer", id="s1", text="no", **cut)
        write.set()
        await device.wire.event("run.ended", runId="r1")
        assert views[0] == ["aa bb cc "], "the steer is not in the log yet"
        kept = "" if seen else "aa bb "
        assert views[1] == views[2] == [kept, "steer", "cc dd ", "tool_call"]
        assert _shown(device.messages[-1]["parts"]) == views[2]


async def test_what_waits_for_the_store_is_in_the_messages() -> None:
    """An agent that reads its answer while the store is slow sees all that it has written, taken or not, once."""
    views: list[list[Any]] = []
    go_on = asyncio.Event()

    async def agent(run: Run) -> None:
        await run.text("one ")
        await asyncio.sleep(0)
        await run.text("two ")
        await go_on.wait()
        await run.reasoning("three")
        views.append(run.messages[-1]["parts"])
        await asyncio.Event().wait()

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        h.road.pause("append")
        await settled()
        go_on.set()
        await settled()
        assert views == [[{"kind": "text", "text": "one two "}, {"kind": "reasoning", "text": "three"}]]
        h.road.resume()


async def test_a_second_attempt_begins_a_part_of_its_own() -> None:
    """What the first has said stays as it was, for the reader and in `run.messages`, whatever waits for the store."""
    views: list[list[Any]] = []

    async def agent(run: Run) -> None:
        await run.text(f"{run.attempt} ")
        views.append(_shown(run.messages[-1]["parts"]))
        await asyncio.sleep(0.001)
        views.append(_shown(run.messages[-1]["parts"]))
        await asyncio.Event().wait()

    async with cluster() as h:
        again = {"puppet": Agent("puppet", agent, restartable=True)}
        await h.start(again)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.chunk")
        await h.kill(1)
        await h.start(again)
        late = await h.device("late", number=2)
        await late.wire.until(lambda message: message.get("delta") == "2 ")
        await asyncio.sleep(0.002)
        assert views[-2:] == [["1 ", "2 "], ["1 ", "2 "]]
        answer = late.messages[-1]
        assert _shown(answer["parts"]) == ["1 ", "2 "]


async def test_the_bound_of_an_answer_is_over_all_attempts() -> None:
    """A run that is called again may not begin its bytes anew."""

    async def agent(run: Run) -> None:
        await run.text("é" * 40)
        if run.attempt == 1:
            await asyncio.Event().wait()

    async with cluster(settings=SessionSettings(run_bytes=100)) as h:
        again = {"puppet": Agent("puppet", agent, restartable=True)}
        await h.start(again)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.chunk")
        await h.kill(1)
        await h.start(again)
        await settled()
        assert h.of("r1", "run.ended")[0]["error"]["code"] == "limit_reached"
        assert h.text("r1") == "é" * 40


async def test_the_parts_of_an_answer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all attempts, counted as they are written: the one too many is refused to the agent, and not in the log."""
    monkeypatch.setattr("holdfast.server.session.worker._PARTS", 4)

    async def agent(run: Run) -> None:
        for number in range(3):
            await run.text("x")
            await run.text("y")
            call_id = await run.tool_call("look", number)
            await run.tool_result(call_id, output=number)

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        ended = await device.wire.event("run.ended")
        assert ended["error"]["code"] == "limit_reached"
        assert [event["part"] for event in h.of("r1", "run.chunk")] == [0, 1, 2, 3]


async def test_a_run_is_called_again_only_when_its_agent_has_stopped_here() -> None:
    """Its session failed and is opened again while the agent is still cleaning up: never two agents at once."""
    at_work: list[int] = []
    most: list[int] = []
    clean = asyncio.Event()

    async def agent(run: Run) -> None:
        at_work.append(run.attempt)
        most.append(len(at_work))
        try:
            await asyncio.Event().wait()
        finally:
            if run.attempt == 1:
                await clean.wait()
            at_work.remove(run.attempt)

    async with cluster() as h:
        again = {"puppet": Agent("puppet", agent, restartable=True)}
        await h.start(again)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await settled()
        h.roads[1].broken.add("append")
        with capture_logs():
            device.ask("send", id="r2", text="go", whenBusy="alongside")
            await settled()
        assert device.session.failed
        h.roads[1].broken.clear()
        device.leave()
        await h.release()
        await h.clock.pass_ms(1_000)
        await h.device("late", number=1)
        await settled()
        assert [event["attempt"] for event in h.of("r1", "run.started")] == [1, 2]
        assert at_work == [1]
        clean.set()
        await settled()
        assert at_work == [2]
        assert max(most) == 1


@pytest.mark.parametrize("shared", [False, True])
async def test_a_run_that_never_ran_is_settled_as_stopped(shared: bool) -> None:
    """It was started and ended in one append: nothing of it ran, also where a sweep comes before that is said."""
    async with cluster(shared=shared) as h:
        device = await h.device()
        h.road.pause("append")
        send, cancel = device.ask("send", id="r1", text="go"), device.ask("cancel", id="k1", runId="r1")
        await settled()
        device.session.chore(Sweep())
        h.road.resume()
        assert ((await send)["outcome"], (await cancel)["outcome"]) == ("started", "cancelled")
        await settled()
        (settle,) = h.of("r1", "run.settled")
        assert (settle["confirmed"], settle["stoppedAfterMs"]) == (True, 0)
