"""The demo agent: the same message every time, one tool, one approval, and steers that can be seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.server.agents.agent import Agent
from holdfast.server.agents.demo import WORDS_PER_SECOND, demo_agent, pieces
from holdfast.server.node.node import Node
from holdfast.server.store import MemoryStore
from tests.support.doubles import Device

QUICK = 10_000.0


class _Talk:
    """A session with the demo agent."""

    def __init__(self, device: Device) -> None:
        self.device = device

    async def say(self, run_id: str, text: str) -> None:
        assert (await self.device.send("send", id=run_id, text=text))["outcome"] in ("started", "queued")

    async def ended(self, run_id: str) -> dict[str, Any]:
        return await self.device.wire.event("run.ended", runId=run_id)

    def text(self, run_id: str) -> str:
        return "".join(chunk["delta"] for chunk in self.chunks(run_id, "text"))

    def chunks(self, run_id: str, kind: str) -> list[dict[str, Any]]:
        return [
            message
            for message in self.device.wire.received
            if message["type"] == "run.chunk" and message["runId"] == run_id and message["kind"] == kind
        ]


@pytest.fixture
async def talk() -> Any:
    """One person in one session, and the agent at full speed."""
    node = Node(MemoryStore(), {"demo": Agent("demo", demo_agent(QUICK))})
    await node.start()
    async with node.open("s") as session:
        device = await Device(session).join()
        yield _Talk(device)
        device.leave()
    await node.stop()


async def test_the_same_text_gets_the_same_message(talk: _Talk) -> None:
    """The message depends on the text alone, says who speaks, and ends with what was used."""
    for run_id in ("r1", "r2"):
        await talk.say(run_id, "hello there")
        ended = await talk.ended(run_id)
        assert ended["reason"] == "completed"
        assert ended["usage"]["model"] == "demo"
        assert ended["usage"]["outputWords"] == len(talk.text(run_id).split())
        assert ended["usage"]["inputWords"] == 2
    assert talk.text("r1") == talk.text("r2") == "".join(pieces("hello there"))
    assert "demo agent" in talk.text("r1")
    assert "hello there" in talk.text("r1")


@pytest.mark.parametrize(
    ("text", "end", "words"),
    [
        ("Count to 12", "11 12.", 13),
        ("count up to 1", "1.", 2),
        ("please be long", "all of it.", 500),
        ("show me markdown", "how to show.", 80),
    ],
)
def test_counting_and_talking_at_length(text: str, end: str, words: int) -> None:
    """It counts as far as it is told, and talks at length when asked."""
    said = "".join(pieces(text)).rstrip()
    assert said.endswith(end)
    assert len(said.split()) >= words


def test_it_offers_what_can_be_stopped() -> None:
    """What it says to try goes on for long enough, at the usual pace, that a person can press stop."""
    offered = "".join(pieces("hello")).split("“")[2].partition("”")[0]
    assert len("".join(pieces(offered)).split()) / WORDS_PER_SECOND > 30


def test_counting_has_an_end() -> None:
    """Nobody makes it count for ever."""
    assert "".join(pieces("count to 99999999999999999999")).endswith(" 10000.")


async def test_it_uses_its_tool(talk: _Talk) -> None:
    """Asked for the weather it makes one call with its result, the same for the same city."""
    await talk.say("r", "What is the weather in New York today?")
    await talk.ended("r")
    (call,), (result,) = talk.chunks("r", "tool_call"), talk.chunks("r", "tool_result")
    assert (call["name"], call["input"]) == ("weather", {"city": "New York"})
    assert result["callId"] == call["callId"]
    assert f"{result['output']['celsius']} °C" in talk.text("r")


@pytest.mark.parametrize(
    ("value", "said", "field"),
    [(True, "ana said yes", "output"), ({"approved": True}, "ana said yes", "output"), (False, "ana said no", "error")],
)
async def test_it_asks_before_it_deletes(talk: _Talk, value: Any, said: str, field: str) -> None:
    """It waits for an approval and goes on by the answer; the call gets a result either way."""
    await talk.say("r", "delete my notes")
    requested = await talk.device.wire.event("run.requested")
    assert requested["request"]["kind"] == "approval"
    answered = await talk.device.send("answer", id="a", runId="r", requestId=requested["request"]["id"], value=value)
    assert answered["outcome"] == "accepted"
    await talk.ended("r")
    assert said in talk.text("r")
    assert field in talk.chunks("r", "tool_result")[0]


async def test_it_asks_for_a_name(talk: _Talk) -> None:
    """Told to ask, it waits for words and goes on with them."""
    await talk.say("r", "ask me something")
    request = (await talk.device.wire.event("run.requested"))["request"]
    assert request["kind"] == "input"
    answered = await talk.device.send("answer", id="a", runId="r", requestId=request["id"], value="Ishmael")
    assert answered["outcome"] == "accepted"
    await talk.ended("r")
    assert "I call you Ishmael, as ana said" in talk.text("r")


async def test_nobody_has_to_tell_it_a_name(talk: _Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its question expires it goes on without an answer."""
    monkeypatch.setattr("holdfast.server.agents.demo._PATIENCE_MS", 1)
    await talk.say("r", "ask me something")
    assert (await talk.ended("r"))["reason"] == "completed"
    assert "I call you nobody" in talk.text("r")


async def test_it_thinks_before_it_speaks(talk: _Talk) -> None:
    """Told to think, its reasoning stands before its text and is none of it."""
    await talk.say("r", "think about it")
    await talk.ended("r")
    thought = "".join(chunk["delta"] for chunk in talk.chunks("r", "reasoning"))
    assert "I am a demo" in thought
    assert "I am a demo" not in talk.text("r")
    assert talk.chunks("r", "reasoning")[-1]["seq"] < talk.chunks("r", "text")[0]["seq"]


async def test_it_does_what_it_is_told_meanwhile(talk: _Talk) -> None:
    """A steer interrupts it, is repeated in the message, and is what it does next, within the same run."""
    await talk.say("r", "count to 10000")
    await talk.device.wire.event("run.chunk", runId="r")
    steered = await talk.device.send("steer", id="s", runId="r", text="What about the weather in Oslo?")
    assert steered["outcome"] == "accepted"
    assert (await talk.ended("r"))["reason"] == "completed"
    assert "You told me: “What about the weather in Oslo?”" in talk.text("r")
    assert talk.chunks("r", "tool_call")[0]["input"] == {"city": "Oslo"}
    assert "10000" not in talk.text("r")


async def test_its_pace_is_kept_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are due at fixed times, so that what a busy loop delays is made up for."""
    waits: list[float] = []
    node = Node(MemoryStore(), {"demo": Agent("demo", demo_agent(10.0))})
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("holdfast.server.agents.demo.asyncio.sleep", noted)
    await node.start()
    async with node.open("s") as session:
        device = await Device(session).join()
        await device.send("send", id="r", text="count to 8")
        await device.wire.event("run.ended")
        device.leave()
    await node.stop()
    paced = [wait for wait in waits if wait > 0.03]
    assert len(paced) == 9
    assert paced[-1] == pytest.approx(0.9, abs=0.3)


@pytest.mark.parametrize("pace", [0.0, -1.0, float("nan")])
def test_a_pace_that_is_none(pace: float) -> None:
    """A pace must be above zero."""
    with pytest.raises(ValueError, match="above zero"):
        demo_agent(pace)
