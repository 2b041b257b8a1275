"""Steers: applied once and in order, returned, withdrawn or sent, and never lost."""

from __future__ import annotations

from holdfast.server.agent import Agent
from holdfast.server.run import Run
from tests.server.doubles import settled
from tests.server.session.house import house


async def test_a_now_steer_interrupts_the_call_and_goes_on_in_the_same_run() -> None:
    """The partial is kept, the agent is called again with it and with the steer, and the run ends once."""
    async with house() as h:
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
    async with house() as h:
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
    async with house() as h:
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
    async with house() as h:
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
    async with house() as h:
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
    async with house() as h:
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
    async with house() as h:
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

    async with house() as h:
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

    async with house() as h:
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
    async with house() as h:
        device = await h.device()
        assert (await device.send("send", id="r1", text="go", whenBusy="steer"))["outcome"] == "started"
        await h.puppet.call()
        ack = await device.send("send", id="r2", text="and", whenBusy="steer")
        assert (ack["outcome"], ack["runId"]) == ("steered", "r1")
        (await h.puppet.call(1)).end()
        await device.wire.event("run.ended", runId="r1")
        cancel = await device.send("cancel", id="k1", runId="r2")
        assert (cancel["outcome"], cancel["runId"]) == ("steered", "r1")
