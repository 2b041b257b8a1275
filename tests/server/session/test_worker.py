"""How a run's worker holds its agent back, wakes it up, and insists."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.server.agents.agent import Agent, AgentFunction
from holdfast.server.agents.run import Run
from holdfast.server.settings import SessionSettings
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled


async def _started(h: Cluster, agent: AgentFunction, *, takes_steers: bool = False) -> Device:
    h.nodes[0].agents = {"puppet": Agent("puppet", agent, takes_steers=takes_steers)}
    h.nodes[0].traits = {name: item.traits for name, item in h.nodes[0].agents.items()}
    device = await h.device()
    await device.send("send", id="r1", text="go")
    await settled()
    return device


async def test_what_was_written_during_an_append_still_counts() -> None:
    """The bound is on all that waits: what is committed makes room for as much, and not for what came meanwhile."""
    written: list[int] = []
    write = asyncio.Semaphore(0)

    async def agent(run: Run) -> None:
        for number in range(100):
            await write.acquire()
            await run.data("n", number)
            written.append(number)

    def let_write(count: int) -> None:
        for _ in range(count):
            write.release()

    async with cluster(settings=SessionSettings(waiting_chunks=20)) as h:
        await _started(h, agent)
        gates = [asyncio.Event(), asyncio.Event(), asyncio.Event()]

        async def gate(method: str) -> None:
            if method == "append":
                await gates[0].wait()

        h.road.before = gate
        let_write(1)
        await settled()  # it is being appended
        let_write(10)
        await settled()
        assert len(written) == 11
        gates.pop(0).set()
        await settled()  # the ten are being appended
        let_write(60)
        await settled()
        assert 20 <= len(written) - 1 <= 22, "ten on their way, and ten more"
        gates.pop(0).set()
        gates[0].set()


async def test_a_task_that_is_held_back_is_woken_by_a_stop() -> None:
    """An agent that waits in its clean-up for a task that waits for room does not wait for its grace to end."""
    ended: list[str] = []

    async def agent(run: Run) -> None:
        async def writes() -> None:
            while True:
                await run.data("x", 1)

        task = asyncio.create_task(writes())
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.wait({task})
            ended.append("agent")

    async with cluster(settings=SessionSettings(waiting_chunks=4)) as h:
        device = await _started(h, agent)
        h.road.pause("append")
        await settled()
        answer = device.ask("cancel", id="k1", runId="r1")
        await settled()
        assert ended == ["agent"], "before the cancel is in the log"
        h.road.resume()
        assert (await answer)["outcome"] == "cancelled"
        assert (await device.wire.event("run.settled"))["confirmed"] is True


async def test_an_agent_that_hears_the_second_time_is_not_closed() -> None:
    """At the end of its grace it is cancelled again."""
    heard: list[str] = []

    async def agent(run: Run) -> None:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append("cancelled")

    async with cluster() as h:
        device = await _started(h, agent)
        before = len(asyncio.all_tasks())
        await device.send("cancel", id="k1", runId="r1")
        await h.clock.pass_ms(h.settings.grace_ms - 1)
        assert heard == ["cancelled"]
        await h.clock.pass_ms(1)
        assert heard == ["cancelled"] * 2
        assert len(asyncio.all_tasks()) < before
        assert h.of("r1", "run.settled")[0]["confirmed"] is False


@pytest.mark.parametrize("boundary", ["now", "step"])
async def test_a_steer_that_was_withdrawn_interrupts_nothing_later(boundary: str) -> None:
    """An agent that takes steers itself begins its block after the withdrawal: it is not cut short."""
    go_on = asyncio.Event()
    interrupted: list[bool] = []

    async def agent(run: Run) -> None:
        await go_on.wait()
        async with run.interruptible() as scope:
            await asyncio.sleep(0)
        interrupted.append(scope.interrupted)

    async with cluster() as h:
        device = await _started(h, agent, takes_steers=True)
        await device.send("steer", id="s1", text="no", boundary=boundary)
        assert (await device.send("withdraw", id="w1", steerId="s1"))["outcome"] == "withdrawn"
        go_on.set()
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert interrupted == [False]


async def test_a_steer_that_was_withdrawn_calls_nobody_again() -> None:
    """An agent that is called again for steers ends, where the only one was withdrawn."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await device.send("steer", id="s1", text="no", boundary="step")
        await device.send("withdraw", id="w1", steerId="s1")
        call.end()
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert len(h.puppet.calls) == 1


async def test_a_run_asks_for_so_many_things_at_once() -> None:
    """Eight; the ninth is refused to the agent, and nothing of it is in the log."""

    async def agent(run: Run) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(9):
                group.create_task(run.ask("input", prompt=str(number)))

    async with cluster() as h:
        device = await _started(h, agent)
        ended = await device.wire.event("run.ended")
        assert ended["reason"] == "failed"
        assert len(h.of("r1", "run.requested")) == 8


async def test_the_usage_of_a_run_is_bounded() -> None:
    """All of it together: what is too much is refused, and what was recorded before stays."""
    refused: list[str] = []

    async def agent(run: Run) -> None:
        await run.usage({"a": "x" * 10_000})
        try:
            await run.usage({"b": "x" * 10_000})
        except Exception as error:
            refused.append(type(error).__name__)

    async with cluster() as h:
        device = await _started(h, agent)
        ended = await device.wire.event("run.ended")
        assert refused == ["OutputTooLargeError"]
        assert list(ended["usage"]) == ["a"]


async def test_an_agent_may_say_more_than_may_wait() -> None:
    """What is in the log waits no more: an answer may be many times as long as the bound on what waits."""

    async def agent(run: Run) -> None:
        for _ in range(50):
            await run.text("x" * 100)

    async with cluster(settings=SessionSettings(waiting_bytes=300)) as h:
        device = await _started(h, agent)
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert h.text("r1") == "x" * 5_000
