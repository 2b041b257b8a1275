"""What becomes of a request when its answer and an interruption meet: an answer that was accepted is acted on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled


class Asker:
    """Agents that ask once per call, and act on what they are told."""

    def __init__(self) -> None:
        self.acted: list[Any] = []

    async def plain(self, run: Run) -> None:
        """Is called again for a steer."""
        if run.messages[-1]["role"] == "user" or not run.messages[-1]["parts"]:
            self.acted.append((await run.ask("input", prompt="?")).value)
            await run.text("acted ")
            await asyncio.Event().wait()

    async def in_a_child(self, run: Run) -> None:
        """The same, asking from a task of its own."""
        if run.messages[-1]["role"] == "user" or not run.messages[-1]["parts"]:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._child(run))
            await asyncio.Event().wait()

    async def _child(self, run: Run) -> None:
        answer = await run.ask("input", prompt="?")
        if answer.outcome == "answered":
            self.acted.append(answer.value)

    async def in_a_block(self, run: Run) -> None:
        """Takes steers itself, and asks where they interrupt."""
        async with run.interruptible():
            self.acted.append((await run.ask("input", prompt="?")).value)
            await asyncio.Event().wait()
        await run.steers()


async def _asked(h: Cluster, asker: Asker, kind: str) -> tuple[Device, str]:
    await h.start({"puppet": Agent("puppet", getattr(asker, kind), takes_steers=kind == "in_a_block")})
    device = await h.device(number=1)
    await device.send("send", id="r1", text="go")
    request = (await device.wire.event("run.requested", runId="r1"))["request"]
    return device, request["id"]


@pytest.mark.parametrize("kind", ["plain", "in_a_child", "in_a_block"])
@pytest.mark.parametrize("gap", [None, 0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20])
@pytest.mark.parametrize("steer_first", [True, False])
async def test_an_answer_and_a_steer_that_meet(kind: str, gap: int | None, steer_first: bool) -> None:
    """However near they come: what is acknowledged as accepted reaches the agent, and nothing else does."""
    asker = Asker()
    async with cluster() as h:
        device, request_id = await _asked(h, asker, kind)

        def answer() -> asyncio.Future[dict[str, Any]]:
            return device.ask("answer", id="a1", runId="r1", requestId=request_id, value="yes")

        def steer() -> asyncio.Future[dict[str, Any]]:
            return device.ask("steer", id="s1", text="no")

        first = steer() if steer_first else answer()
        if gap is not None:
            await settled(gap)
        second = answer() if steer_first else steer()
        steered, answered = (await first, await second) if steer_first else (await second, await first)
        assert steered["outcome"] == "accepted"
        await device.wire.event("steer.applied", runId="r1")
        await settled()
        assert answered["outcome"] in ("accepted", "expired", "already_ended")
        if not steer_first:
            assert answered["outcome"] == "accepted"
        assert asker.acted == (["yes"] if answered["outcome"] == "accepted" else [])
        (resolved,) = h.of("r1", "run.resolved")
        assert resolved["outcome"] == ("answered" if answered["outcome"] == "accepted" else "withdrawn")


@pytest.mark.parametrize("kind", ["plain", "in_a_block"])
async def test_an_answer_that_comes_while_a_request_is_taken_back(kind: str) -> None:
    """The store is slow: the answer overtakes the withdrawal, is accepted, and acted on."""
    asker = Asker()
    async with cluster() as h:
        device, request_id = await _asked(h, asker, kind)
        assert (await device.send("steer", id="s1", text="no"))["outcome"] == "accepted"
        answered = await device.send("answer", id="a1", runId="r1", requestId=request_id, value="yes")
        await device.wire.event("steer.applied", runId="r1")
        await settled()
        assert asker.acted == (["yes"] if answered["outcome"] == "accepted" else [])


async def test_a_request_taken_back_for_a_steer_that_is_withdrawn() -> None:
    """Nothing interrupts any more, and nobody can answer: the agent is told that it was withdrawn, and goes on."""
    told: list[str] = []

    async def agent(run: Run) -> None:
        told.append((await run.ask("input", prompt="?")).outcome)

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.requested")
        steer, withdraw = device.ask("steer", id="s1", text="no"), device.ask("withdraw", id="w1", steerId="s1")
        assert ((await steer)["outcome"], (await withdraw)["outcome"]) == ("accepted", "withdrawn")
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert told == ["withdrawn"]


async def test_what_asks_beside_an_interruptible_block_goes_on_waiting() -> None:
    """A steer interrupts the block, and takes back what the block waits for only."""
    told: list[Any] = []

    async def agent(run: Run) -> None:
        async def beside() -> None:
            told.append((await run.ask("input", prompt="beside")).value)

        async with asyncio.TaskGroup() as group:
            group.create_task(beside())
            async with run.interruptible():
                await run.ask("input", prompt="inside")
            await run.steers()

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent, takes_steers=True)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await settled()
        ids = {event["request"]["prompt"]: event["request"]["id"] for event in h.of("r1", "run.requested")}
        await device.send("steer", id="s1", text="no")
        resolved = await device.wire.event("run.resolved")
        assert (resolved["requestId"], resolved["outcome"]) == (ids["inside"], "withdrawn")
        answered = await device.send("answer", id="a1", runId="r1", requestId=ids["beside"], value=3)
        assert answered["outcome"] == "accepted"
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert told == [3]


async def test_an_ask_that_is_given_up_is_taken_back() -> None:
    """By a time limit of the agent's own: nobody can answer it any more, and the run goes on."""

    async def agent(run: Run) -> None:
        try:
            async with asyncio.timeout(0):
                await run.ask("input", prompt="?")
        except TimeoutError:
            await run.text("never mind")

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert [event["outcome"] for event in h.of("r1", "run.resolved")] == ["withdrawn"]
        assert h.text("r1") == "never mind"
