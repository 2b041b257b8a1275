"""Steers: applied once and in order, returned, withdrawn or sent, and never lost."""

from __future__ import annotations

import asyncio

from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from tests.support.cluster import cluster
from tests.support.doubles import settled


async def test_a_now_steer_interrupts_the_call_and_goes_on_in_the_same_run() -> None:
    """The partial is kept, the agent is called again with it and with the steer, and the run ends once."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        first = await h.puppet.call()
        first.say("one ")
        await settled()
        ack = await device.send("steer", id="s1", text="shorter")
        assert (ack["outcome"], ack["runId"]) == ("accepted", "r1")
        second = await h.puppet.call(1)
        assert first.ended.is_set()
        first.say("late ")
        answer = second.prompt[-1]
        assert [part["kind"] for part in answer["parts"]] == ["text", "steer"]
        assert answer["parts"][0]["text"] == "one "
        second.say("two")
        second.end()
        assert (await device.wire.event("run.ended"))["returned"] == []
        kinds = [
            "message", "run.started", "run.chunk", "steer.accepted", "steer.applied", "run.chunk", "run.ended",
        ]  # fmt: skip
        assert h.kinds("r1") == kinds
        assert h.text("r1") == "one two"


async def test_a_step_steer_waits_for_the_end_of_the_call() -> None:
    """It does not interrupt; at the call's end it is applied, and the agent called again."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        first = await h.puppet.call()
        await device.send("steer", id="s1", text="then this", boundary="step")
        first.say("one ")
        await settled()
        assert len(h.puppet.calls) == 1
        assert h.of("r1", "steer.applied") == []
        first.end()
        second = await h.puppet.call(1)
        second.end()
        await device.wire.event("run.ended", reason="completed")
        assert len(h.of("r1", "steer.applied")) == 1


async def test_a_steer_in_the_batch_of_the_last_chunk_is_applied() -> None:
    """An agent that ends in the very append that accepts a steer is called again."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        first = await h.puppet.call()
        h.road.pause("append")
        first.say("a")
        await settled()
        first.say("b")
        first.end()
        answer = device.ask("steer", id="s1", text="more", boundary="step")
        await settled()
        h.road.resume()
        assert (await answer)["outcome"] == "accepted"
        second = await h.puppet.call(1)
        second.say("c")
        second.end()
        ended = await device.wire.event("run.ended")
        assert (ended["reason"], ended["returned"]) == ("completed", [])
        assert h.text("r1") == "abc"


async def test_a_steer_cuts_what_its_sender_had_not_seen() -> None:
    """`seen` becomes `kept` of `steer.applied`: prompt and transcript both end there."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        first = await h.puppet.call()
        first.say("seen ")
        await settled()
        seen = device.cursor()
        assert seen is not None
        first.say("unseen ")
        await settled()
        await device.send("steer", id="s1", text="no", seen={"epoch": seen["epoch"], "seq": seen["seq"]})
        second = await h.puppet.call(1)
        assert second.prompt[-1]["parts"][0]["text"] == "seen "
        second.say("after")
        second.end()
        await device.wire.event("run.ended")
        assert device.text("r1") == "seen after"


async def test_a_steer_withdrawn_after_it_interrupted() -> None:
    """The agent is called again without it, and the run goes on."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        first = await h.puppet.call()
        first.say("one ")
        await settled()
        steer, withdraw = device.ask("steer", id="s1", text="no"), device.ask("withdraw", id="w1", steerId="s1")
        assert ((await steer)["outcome"], (await withdraw)["outcome"]) == ("accepted", "withdrawn")
        second = await h.puppet.call(1)
        assert [part["kind"] for part in second.prompt[-1]["parts"]] == ["text"]
        second.end()
        assert (await device.wire.event("run.ended"))["reason"] == "completed"


async def test_steers_left_at_a_cancel_are_returned_and_never_start_a_run() -> None:
    """Even those that wanted to be sent: a stop starts nothing."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await h.puppet.call()
        answers = [
            device.ask("steer", id="s1", text="a", boundary="step"),
            device.ask("steer", id="s2", text="b", boundary="step", ifEnded="send"),
            device.ask("cancel", id="k1", runId="r1"),
        ]
        assert [(await answer)["outcome"] for answer in answers] == ["accepted", "accepted", "cancelled"]
        ended = h.of("r1", "run.ended")[0]
        assert [item["steerId"] for item in ended["returned"]] == ["s1", "s2"]
        assert h.of("s2") == []


async def test_steers_left_at_a_failure_are_returned_or_sent() -> None:
    """One with `ifEnded: send` becomes the next message in the same append, the other goes back."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await device.send("steer", id="s1", text="a", boundary="step")
        await device.send("steer", id="s2", text="b", boundary="step", ifEnded="send")
        call.fail(ValueError("no"))
        ended = await device.wire.event("run.ended", runId="r1")
        assert [item["steerId"] for item in ended["returned"]] == ["s1"]
        assert h.kinds("s2")[:3] == ["run.queued", "message", "run.started"]
        assert (await h.puppet.call(1)).run.run_id == "s2"


async def test_an_agent_takes_its_steers_itself() -> None:
    """`run.interruptible` ends at a `now` steer, and `run.steers` gives it, in the log as applied."""
    heard: list[str] = []

    async def agent(run: Run) -> None:
        async with run.interruptible() as scope:
            await run.text("working ")
            await run.ask("input", prompt="for ever?")
        assert scope.interrupted
        heard.extend(steer.text for steer in await run.steers())
        await run.text("done")

    async with cluster() as h:
        h.agents = {"own": Agent("own", agent, takes_steers=True)}
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.requested")
        await device.send("steer", id="s1", text="hurry")
        ended = await device.wire.event("run.ended")
        assert ended["reason"] == "completed"
        assert heard == ["hurry"]
        assert device.text("r1") == "working done"
        assert h.of("r1", "run.resolved")[0]["outcome"] == "withdrawn"


async def test_a_steer_that_such_an_agent_leaves_is_returned() -> None:
    """What it never took is not applied behind its back."""

    async def agent(run: Run) -> None:
        await run.ask("input", prompt="?")

    async with cluster() as h:
        h.agents = {"own": Agent("own", agent, takes_steers=True)}
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        asked = await device.wire.event("run.requested")
        await device.send("steer", id="s1", text="hurry")
        await device.send("answer", id="a1", runId="r1", requestId=asked["request"]["id"], value=1)
        ended = await device.wire.event("run.ended")
        assert [item["steerId"] for item in ended["returned"]] == ["s1"]


async def test_a_send_with_steer_goes_into_the_main_run_or_starts() -> None:
    """`whenBusy: steer` is a steer where a run goes on, and a message where none does."""
    async with cluster() as h:
        device = await h.device()
        assert (await device.send("send", id="r1", text="go", whenBusy="steer"))["outcome"] == "started"
        await h.puppet.call()
        ack = await device.send("send", id="r2", text="and", whenBusy="steer")
        assert (ack["outcome"], ack["runId"]) == ("steered", "r1")
        (await h.puppet.call(1)).end()
        await device.wire.event("run.ended", runId="r1")
        cancel = await device.send("cancel", id="k1", runId="r2")
        assert (cancel["outcome"], cancel["runId"]) == ("steered", "r1")


async def test_a_steer_whose_taker_is_cancelled_is_given_to_the_next() -> None:
    """Waiting for `run.steers()` may be cut short; what was applied meanwhile is what the next call of it returns."""
    heard: list[str] = []

    async def agent(run: Run) -> None:
        while len(heard) < 2:
            async with run.interruptible():
                await run.text("a ")
                heard.extend(steer.text for steer in await run.steers())
                if len(heard) < 2:
                    await asyncio.Event().wait()

    async with cluster() as h:
        h.agents = {"own": Agent("own", agent, takes_steers=True)}
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await settled()
        for number in (1, 2):
            h.roads[1].pause("append")
            answer = device.ask("steer", id=f"s{number}", text=f"turn {number}")
            await settled()
            h.roads[1].resume()
            assert (await answer)["outcome"] == "accepted"
            await settled()
        ended = await device.wire.event("run.ended")
        assert (ended["reason"], ended["returned"]) == ("completed", [])
        assert heard == ["turn 1", "turn 2"]
        assert [event["steerId"] for event in h.of("r1", "steer.applied")] == ["s1", "s2"]


async def test_a_steer_that_is_being_taken_interrupts_nothing_more() -> None:
    """While the store is slow an agent that takes its steers in a block is cut short once, and does not spin."""
    heard: list[str] = []
    rounds = 0

    async def agent(run: Run) -> None:
        nonlocal rounds
        while not heard:
            rounds += 1
            async with run.interruptible():
                heard.extend(steer.text for steer in await run.steers())
                if not heard:
                    await asyncio.Event().wait()

    async with cluster() as h:
        h.agents = {"own": Agent("own", agent, takes_steers=True)}
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await settled()
        answer = device.ask("steer", id="s1", text="turn")
        await device.wire.event("steer.accepted")
        h.roads[1].pause("append")
        assert (await answer)["outcome"] == "accepted"
        await settled()
        assert rounds <= 3
        h.roads[1].resume()
        await device.wire.event("run.ended", reason="completed")
        assert heard == ["turn"]


async def test_a_called_again_agent_may_ask_for_steers_as_its_boundary() -> None:
    """A `step` steer is applied there, is in `run.messages` from then on, and the agent is not called again for it."""
    prompts: list[list[str]] = []
    taken: list[str] = []
    go_on = asyncio.Event()

    async def agent(run: Run) -> None:
        await run.text("one ")
        await go_on.wait()
        taken.extend(steer.text for steer in await run.steers())
        prompts.append([str(part["kind"]) for part in run.messages[-1]["parts"]])

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.chunk")
        await device.send("steer", id="s1", text="then this", boundary="step")
        go_on.set()
        await device.wire.event("run.ended", reason="completed")
        assert (taken, prompts) == (["then this"], [["text", "steer"]])


async def test_an_agent_interrupted_as_it_takes_steers_goes_on() -> None:
    """A call that is cancelled in `run.steers()` leaves nothing behind that keeps the agent from being called again."""
    prompts: list[list[str]] = []
    retaken: list[str] = []

    async def agent(run: Run) -> None:
        last = run.messages[-1]
        prompts.append([str(part["kind"]) for part in last["parts"] if last["role"] == "assistant"])
        if len(prompts) > 1:
            retaken.extend(steer.text for steer in await run.steers())
            return
        while True:
            await run.steers()

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await settled()
        assert (await device.send("steer", id="s1", text="rather"))["outcome"] == "accepted"
        ended = await device.wire.event("run.ended")
        assert (ended["reason"], ended["returned"]) == ("completed", [])
        assert prompts == [[], ["steer"]]
        assert retaken == []  # it stands in the messages already


async def test_a_block_that_never_waited_ends_clean() -> None:
    """A steer that waited when the block began does not cut short what comes after it."""
    after: list[str] = []
    go_on = asyncio.Event()

    async def agent(run: Run) -> None:
        await go_on.wait()
        async with run.interruptible() as scope:
            after.append("no await")
        assert scope.interrupted
        await asyncio.sleep(0)
        after.extend(steer.text for steer in await run.steers())

    async with cluster() as h:
        h.agents = {"own": Agent("own", agent, takes_steers=True)}
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await device.send("steer", id="s1", text="hurry")
        go_on.set()
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert after == ["no await", "hurry"]


async def test_a_block_that_never_waited_lets_a_stop_pass() -> None:
    """The stop that comes in the very step in which an interruption is absorbed is not absorbed with it."""
    after: list[str] = []
    go_on = asyncio.Event()

    async def agent(run: Run) -> None:
        await go_on.wait()
        task = asyncio.current_task()
        assert task is not None
        async with run.interruptible():
            task.cancel()
        after.append("gone on")

    async with cluster() as h:
        h.agents = {"own": Agent("own", agent, takes_steers=True)}
        await h.start(h.agents)
        device = await h.device(number=1)
        await device.send("send", id="r1", text="go")
        await device.send("steer", id="s1", text="hurry")
        go_on.set()
        await settled()
        assert after == []
        await device.wire.event("run.ended")


async def test_what_a_finished_call_left_behind_writes_into_no_later_one() -> None:
    """A task that an agent forgot is told that its call is over, and adds nothing to the next one's answer."""
    stray: list[asyncio.Task[None]] = []
    first_ends, next_began = asyncio.Event(), asyncio.Event()

    async def agent(run: Run) -> None:
        async def later() -> None:
            await next_began.wait()
            await run.text("stray ")

        if not stray:
            stray.append(asyncio.ensure_future(later()))
            await run.text("one ")
            await first_ends.wait()
            return
        next_began.set()
        await asyncio.wait(stray)
        await run.text("two")

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.chunk")
        await device.send("steer", id="s1", text="more", boundary="step")
        first_ends.set()
        await device.wire.event("run.ended", reason="completed")
        assert device.text("r1") == "one two"
        assert stray[0].cancelled()


async def test_a_steer_of_a_queued_run_is_there_when_it_starts() -> None:
    """Its agent is called once, with the steer in its messages."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.send("send", id="r2", text="then")
        assert (await device.send("steer", id="s1", text="and so", runId="r2"))["outcome"] == "accepted"
        (await h.puppet.call()).end()
        call = await h.puppet.call(1)
        assert [part["kind"] for part in call.prompt[-1]["parts"]] == ["steer"]
        call.end()
        assert (await device.wire.event("run.ended", runId="r2"))["reason"] == "completed"
        assert len(h.puppet.calls) == 2
