"""The openai agent within a real session: log, registry and worker, against a local model server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from holdfast.server import MemoryStore
from holdfast.server.agents.agent import Agent
from holdfast.server.agents.openai import openai_agent
from holdfast.server.agents.tools import tool
from holdfast.server.node.node import Node
from tests.support.doubles import Device
from tests.support.openai_endpoint import Endpoint, ScriptedResponse
from tests.support.openai_streams import Fail, Hold, Reasoning, Text, ToolCall


@tool(approval=True)
def weather(city: str) -> str:
    """Look up the weather of a city."""
    return f"clear over {city}"


@pytest.fixture(params=["chat", "responses"])
async def device(request: pytest.FixtureRequest, endpoint: Endpoint) -> AsyncIterator[Device]:
    """A device in a session whose agent is the openai agent, for each of the two APIs."""
    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(api_key="k", base_url=endpoint.base_url, http_client=http) as client:
        agent = openai_agent(model="m", api=request.param, client=client, tools=[weather])
        node = Node(MemoryStore(), {"assistant": Agent("assistant", agent)})
        await node.start()
        async with node.open("s") as session:
            yield await Device(session).join()
        await node.stop()


async def chunk_of(device: Device, kind: str, run_id: str = "r1") -> dict[str, Any]:
    """The first chunk of that kind of a run."""
    return await device.wire.until(
        lambda message: (message["type"], message.get("kind"), message.get("runId")) == ("run.chunk", kind, run_id)
    )


def text_of(device: Device, run_id: str) -> str:
    """All text of a run, as the device received it."""
    chunks = (message for message in device.wire.received if message["type"] == "run.chunk")
    return "".join(chunk["delta"] for chunk in chunks if (chunk["runId"], chunk["kind"]) == (run_id, "text"))


async def test_a_message_with_a_tool_and_an_approval(device: Device, endpoint: Endpoint) -> None:
    """Reasoning, a call, a person's approval, its result and the text are in the log; the usage is at its
    end.
    """
    endpoint.script(
        ScriptedResponse(Reasoning("hm"), ToolCall("weather", '{"city":"Lisbon"}')),
        ScriptedResponse(Text("Clear "), Text("skies.")),
    )
    await device.send("send", id="r1", text="weather?")
    asked = await device.wire.event("run.requested", runId="r1")
    assert asked["request"]["input"] == {"city": "Lisbon"}
    await device.send("answer", id="a1", runId="r1", requestId=asked["request"]["id"], value=True)
    ended = await device.wire.event("run.ended", runId="r1")
    assert ended["reason"] == "completed"
    assert (ended["usage"]["model"], ended["usage"]["inputTokens"]) == ("m", 14)
    assert (await chunk_of(device, "reasoning"))["delta"] == "hm"
    assert (await chunk_of(device, "tool_result"))["output"] == "clear over Lisbon"
    assert text_of(device, "r1") == "Clear skies."


async def test_a_cancelled_run_is_settled_with_its_upstream_closed(device: Device, endpoint: Endpoint) -> None:
    """`run.settled` is confirmed, nothing more is billed, and the next request shows the partial."""
    endpoint.script(ScriptedResponse(Text("One, "), Hold(), *[Text("more")] * 50), ScriptedResponse(Text("Two.")))
    await device.send("send", id="r1", text="count")
    await chunk_of(device, "text")
    assert (await device.send("cancel", id="k1", runId="r1"))["outcome"] == "cancelled"
    request = await endpoint.request(0)
    await request.closed.wait()
    assert (await device.wire.event("run.settled", runId="r1"))["confirmed"] is True
    endpoint.release()
    await request.done.wait()
    assert (request.billed, text_of(device, "r1")) == (1, "One, ")
    await device.send("send", id="r2", text="go on")
    assert (await device.wire.event("run.ended", runId="r2"))["reason"] == "completed"
    body = (await endpoint.request(1)).body
    history = body.get("messages") or body["input"]
    assert [item["content"] for item in history] == ["count", "One, ", "go on"]


async def test_a_now_steer_interrupts_the_model_and_goes_on(device: Device, endpoint: Endpoint) -> None:
    """The request in flight is closed, the next shows partial and steer, and the run ends completed, once."""
    endpoint.script(ScriptedResponse(Text("One, two, "), Hold()), ScriptedResponse(Text("trois.")))
    await device.send("send", id="r1", text="count")
    await chunk_of(device, "text")
    await device.send("steer", id="st", runId="r1", text="in French")
    assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
    await (await endpoint.request(0)).closed.wait()
    body = (await endpoint.request(1)).body
    history = body.get("messages") or body["input"]
    assert [(item["role"], item["content"]) for item in history] == [
        ("user", "count"),
        ("assistant", "One, two, "),
        ("user", "in French"),
    ]
    assert text_of(device, "r1") == "One, two, trois."


async def test_a_steer_during_an_approval_closes_the_call(device: Device, endpoint: Endpoint) -> None:
    """A run steered while a person is asked takes the request back, and its history is accepted."""
    endpoint.script(ScriptedResponse(ToolCall("weather", '{"city":"Lisbon"}')), ScriptedResponse(Text("As you like.")))
    await device.send("send", id="r1", text="weather?")
    await device.wire.event("run.requested", runId="r1")
    await device.send("steer", id="st", runId="r1", text="never mind")
    assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
    assert (await device.wire.event("run.resolved", runId="r1"))["outcome"] == "withdrawn"
    assert text_of(device, "r1") == "As you like."


async def test_a_step_steer_waits_for_the_tools(device: Device, endpoint: Endpoint) -> None:
    """A steer with boundary `step` interrupts nothing and is in the request after the tools' results."""
    endpoint.script(ScriptedResponse(ToolCall("weather", '{"city":"Lisbon"}')), ScriptedResponse(Text("Claro.")))
    await device.send("send", id="r1", text="weather?")
    asked = await device.wire.event("run.requested", runId="r1")
    await device.send("steer", id="st", runId="r1", text="in Portuguese", boundary="step")
    await device.send("answer", id="a1", runId="r1", requestId=asked["request"]["id"], value=True)
    assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
    body = (await endpoint.request(1)).body
    history = body.get("messages") or body["input"]
    assert history[-1] == {"role": "user", "content": "in Portuguese"}
    assert "clear over Lisbon" in str(history[-2])
    assert len(endpoint.requests) == 2


async def test_an_upstream_error_fails_the_run_safely(device: Device, endpoint: Endpoint) -> None:
    """The run ends failed with code and sentence, its text stays, and nothing of the server's words is shown."""
    endpoint.script(ScriptedResponse(Text("half "), Fail("internal host 10.0.0.7 is down")))
    await device.send("send", id="r1", text="hello")
    ended = await device.wire.event("run.ended", runId="r1")
    assert (ended["reason"], ended["error"]["code"]) == ("failed", "upstream_unavailable")
    assert "10.0.0.7" not in str(device.wire.received)
    assert text_of(device, "r1") == "half "
