"""What agents may do, and what becomes of those that do it wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from holdfast.server.agents.agent import Agent, AgentFunction
from holdfast.server.agents.run import Run
from holdfast.server.session import worker
from holdfast.server.settings import SessionSettings
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import settled


async def _ended(h: Cluster, agent: AgentFunction, **send: Any) -> dict[str, Any]:
    h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
    device = await h.device()
    await device.send("send", id="r1", text="go", **send)
    return await device.wire.event("run.ended", runId="r1")


async def test_a_generator_of_strings_is_an_agent() -> None:
    """Its text is the answer, and its end the run's."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("Hello", ", world")
        call.end()
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert device.text("r1") == "Hello, world"
        assert call.prompt[-1]["parts"] == [{"kind": "text", "text": "go"}]


async def test_an_agent_that_raises_fails_its_run_only() -> None:
    """The client is told nothing of the reason, the server's log all of it; what was said before stays."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("so far ")
        with capture_logs() as logs:
            call.fail(ZeroDivisionError("the secret is 42"))
            ended = await device.wire.event("run.ended")
        assert (ended["reason"], ended["error"]["code"]) == ("failed", "agent_error")
        assert "42" not in str(ended)
        raised = next(entry for entry in logs if entry["event"] == "agent raised")
        assert (raised["run"], str(raised["exc_info"])) == ("r1", "the secret is 42")
        assert device.text("r1") == "so far "
        assert (await device.send("send", id="r2", text="again"))["outcome"] == "started"


@pytest.mark.parametrize("wrong", [b"bytes", 7, {"text": "x"}])
async def test_what_is_not_a_string_fails_its_producer(wrong: object) -> None:
    """A generator that yields something else fails, and is closed."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("ok ", wrong)
        assert (await device.wire.event("run.ended"))["reason"] == "failed"
        assert call.ended.is_set()
        assert device.text("r1") == "ok "


async def test_what_cannot_be_encoded_fails_its_producer_only() -> None:
    """A run beside it, with output in the same batch, does not notice."""

    async def wrong(run: Run) -> None:
        await run.text("before ")
        await run.data("thing", cast("Any", object()))

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", h.puppet), "wrong": Agent("wrong", wrong)}
        h.nodes[0].traits = {name: agent.traits for name, agent in h.nodes[0].agents.items()}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.pause("append")
        answer = device.ask("send", id="r2", text="go", agent="wrong", whenBusy="alongside")
        call.say("fine")
        await settled()
        h.road.resume()
        assert (await answer)["outcome"] == "started"
        ended = await device.wire.event("run.ended", runId="r2")
        assert ended["reason"] == "failed"
        call.end()
        assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
        assert (device.text("r1"), device.text("r2")) == ("fine", "before ")


async def test_a_run_has_a_limit() -> None:
    """An agent that produces more than `run_bytes` fails with `limit_reached`, with what fitted kept."""

    async def endless(run: Run) -> None:
        while True:
            await run.text("x" * 100)

    async with cluster(settings=SessionSettings(run_bytes=1000)) as h:
        ended = await _ended(h, endless)
        assert (ended["reason"], ended["error"]["code"]) == ("failed", "limit_reached")
        assert h.text("r1") == "x" * 1000


async def test_a_fast_agent_is_held_at_the_bound_and_nothing_is_dropped() -> None:
    """While the store says nothing the agent waits at the bound; afterwards all it said is in the log, in order."""
    taken: list[str] = []

    async def fast(run: Run) -> None:
        for number in range(200):
            text = f"{number} "
            taken.append(text)
            await run.text(text)

    async with cluster(settings=SessionSettings(waiting_chunks=20)) as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", fast)}
        device = await h.device()
        h.road.pause("append")
        answer = device.ask("send", id="r1", text="go")
        await settled()
        h.road.resume()
        await answer
        h.road.pause("append")
        await settled(200)
        held = len(taken)
        assert held <= 2 * 20 + 2
        h.road.resume()
        await device.wire.event("run.ended", runId="r1")
        assert h.text("r1") == "".join(taken) == "".join(f"{number} " for number in range(200))


async def test_two_tasks_of_one_agent_are_both_let_go_on() -> None:
    """An agent that writes from several tasks is held back in all of them, and none is forgotten."""

    async def several(run: Run) -> None:
        async def part(name: str) -> None:
            for _ in range(60):
                await run.data(name, "x")
                await asyncio.sleep(0)

        await asyncio.gather(*(part(name) for name in "abc"))

    async with cluster(settings=SessionSettings(waiting_chunks=8)) as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", several)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        h.road.pause("append")
        await settled()
        h.road.resume()
        await device.wire.event("run.ended", runId="r1")
        assert len(h.of("r1", "run.chunk")) == 180


async def test_a_group_commit_takes_all_that_is_pending() -> None:
    """Everything that came while an append was on its way is the next append, adjacent text one event."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.pause("append")
        call.say("a")
        await settled()
        call.say(*"bcdefgh")
        await settled()
        appends = h.road.calls["append"]
        h.road.resume()
        await device.wire.until(lambda message: message.get("delta") == "bcdefgh")
        assert h.road.calls["append"] == appends + 1
        assert [event["delta"] for event in h.of("r1", "run.chunk")] == ["a", "bcdefgh"]


async def test_empty_text_adds_nothing() -> None:
    """An agent that yields or adds an empty string adds no event, and begins no part; text goes on behind it."""

    async def generator(_: Run) -> AsyncGenerator[str]:
        for text in ("", "a", "", "b", ""):
            yield text
            await settled()

    async def coroutine(run: Run) -> None:
        for add in (run.text, run.reasoning):
            await add("")
            await settled()
        await run.text("a")
        await settled()
        await run.reasoning("")
        await run.text("b")

    for agent in (generator, coroutine):
        async with cluster() as h:
            assert (await _ended(h, agent))["reason"] == "completed"
            assert [event["delta"] for event in h.of("r1", "run.chunk")] == ["a", "b"]
            assert {event["part"] for event in h.of("r1", "run.chunk")} == {0}


async def test_a_generator_that_goes_on_all_the_same_adds_nothing() -> None:
    """What a call yields after a steer has interrupted it, though it was told, is not in the answer."""
    calls = 0
    closed: list[str] = []

    async def deaf(_: Run) -> AsyncGenerator[str]:
        nonlocal calls
        calls += 1
        if calls > 1:
            yield "b"
            return
        yield "a"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                yield "never"
            finally:
                closed.append("never")

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", deaf)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.chunk")
        await device.send("steer", id="s1", runId="r1", text="so", boundary="now")
        await device.wire.event("run.ended", runId="r1")
        assert [event["delta"] for event in h.of("r1", "run.chunk")] == ["a", "b"]
        assert closed == ["never"]


@pytest.mark.parametrize(("bound", "reason"), [(7, "completed"), (6, "failed")])
async def test_text_behind_something_else_is_a_part_of_its_own(
    bound: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a steer, data or text of another kind: and each of these parts counts towards the bound of a message."""
    monkeypatch.setattr(worker, "_PARTS", bound)

    async def agent(run: Run) -> None:
        await run.text("a")
        for _ in range(100):
            if await run.steers():
                break
        await run.text("b")
        await run.data("n", 1)
        await run.text("c")
        await run.reasoning("d")
        await run.text("e")

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent, takes_steers=True)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.send("steer", id="s1", runId="r1", text="so", boundary="step")
        assert (await device.wire.event("run.ended", runId="r1"))["reason"] == reason
        parts = [(event["part"], event.get("delta")) for event in h.of("r1", "run.chunk")]
        assert parts == [(0, "a"), (2, "b"), (3, None), (4, "c"), (5, "d"), (6, "e")][: bound - 1]


async def test_the_richer_output_is_in_the_answer() -> None:
    """Reasoning, a tool call with its result, data, a source, a file, and the usage."""

    async def rich(run: Run) -> None:
        await run.reasoning("hm ")
        call_id = await run.tool_call("look", {"at": "it"})
        await run.tool_result(call_id, output=[1, 2])
        await run.data("progress", 0.5)
        await run.source("https://example.org/", "Example")
        await run.file("https://example.org/x.png", media_type="image/png")
        await run.text("done")
        await run.usage({"inputTokens": 3})
        await run.usage({"outputTokens": 4})

    async with cluster() as h:
        ended = await _ended(h, rich)
        assert ended["usage"] == {"inputTokens": 3, "outputTokens": 4}
        kinds = [event["kind"] for event in h.of("r1", "run.chunk")]
        assert kinds == ["reasoning", "tool_call", "tool_result", "data", "source", "file", "text"]


async def test_the_usage_of_a_stopped_run_is_in_its_settling() -> None:
    """What a stopped agent reports while it stops is not lost."""

    async def counted(run: Run) -> None:
        try:
            await run.text("one ")
            await asyncio.Event().wait()
        finally:
            await run.usage({"outputTokens": 4})

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", counted)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.chunk")
        await device.send("cancel", id="k1", runId="r1")
        settle = await device.wire.event("run.settled")
        assert settle["usage"] == {"outputTokens": 4}


async def test_a_failure_of_the_server_fails_the_run_and_not_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output that cannot be decided ends its run as failed: an agent never goes on over a hole in its answer."""
    from holdfast.server.session import core as module

    decide = module.decide  # type: ignore[attr-defined]  # what the module imports is replaced where it is used

    def broken(state: Any, work: Any, context: Any) -> Any:
        if getattr(work, "event", {}).get("name") == "break":
            raise RuntimeError("a mistake in this program")
        return decide(state, work, context)

    async def agent(run: Run) -> None:
        await run.text("one ")
        await run.data("break", 1)
        await run.text("two ")
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "decide", broken)
    async with cluster() as h:
        with capture_logs() as logs:
            ended = await _ended(h, agent)
        assert (ended["reason"], ended["error"]["code"]) == ("failed", "internal")
        assert any(entry["event"] == "deciding failed" for entry in logs)
        assert not (await h.session()).failed
