"""The openai agent, with the real package, against a local model server."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import openai
import pytest

from holdfast.protocol import JSON, Part
from holdfast.server.agents.openai import OpenAIAgent, openai_agent
from holdfast.server.agents.tools import Tool, tool
from holdfast.server.errors import AgentError
from tests.support.fake_run import KEY, FakeAnswer, FakeRun, asked, user, work_on
from tests.support.openai_endpoint import Endpoint, ScriptedResponse
from tests.support.openai_streams import Hold, Raw, Reasoning, Text, ToolCall


def with_tools(agent: OpenAIAgent, client: openai.AsyncOpenAI, *tools: Tool, **more: Any) -> OpenAIAgent:
    """The same agent with tools."""
    return openai_agent(model="m", api=agent.api, client=client, tools=tools, **more)


def results(run: FakeRun) -> list[Part]:
    """The results of the run's tool calls."""
    return [part for part in run.parts if part["kind"] == "tool_result"]


@tool
async def weather(city: str) -> dict[str, JSON]:
    """Look up the weather of a city."""
    return {"city": city, "sky": "clear"}


# ---- messages


async def test_text_and_reasoning_arrive_in_order(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """What the model reasons and says is what the run holds, and its tokens are counted."""
    endpoint.script(ScriptedResponse(Reasoning("Let me "), Reasoning("see."), Text("Grüße"), Text(" 👋")))
    run = asked()
    await work_on(agent, run)
    assert run.parts == [
        {"kind": "reasoning", "text": "Let me see."},
        {"kind": "text", "text": "Grüße 👋"},
    ]
    assert run.used == {"model": "m", "inputTokens": 7, "outputTokens": 4, "totalTokens": 11} | (
        {"reasoningTokens": 0} if agent.api == "responses" else {}
    )
    request = await endpoint.request(0)
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_a_chunk_is_passed_on_before_the_next_comes(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """Nothing waits for more: text is with the run while the server holds the rest."""
    endpoint.script(ScriptedResponse(Text("first"), Hold(), Text(" second")))
    run = asked()
    task = work_on(agent, run)
    await run.spoke.wait()
    assert run.said == "first"
    endpoint.release()
    await task
    assert run.said == "first second"


async def test_instructions_and_options_are_in_the_request(
    agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint
) -> None:
    """Instructions go where each API wants them, options are further fields; nothing is stored upstream."""
    await work_on(with_tools(agent, client, instructions="Be brief.", options={"temperature": 0}), asked())
    body = (await endpoint.request(0)).body
    assert body["temperature"] == 0
    assert "tools" not in body
    if agent.api == "chat":
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    else:
        assert (body["instructions"], body["store"]) == ("Be brief.", False)


async def test_connections_are_used_again(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """One run after the other goes over one connection: the end of each response is read."""
    for _ in range(3):
        await work_on(agent, asked())
    assert endpoint.connections == 1


async def test_compressed_responses_are_read(client: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
    """A server that compresses, although it was asked not to, is understood."""
    stream = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    headers = {"content-encoding": "gzip", "content-type": "text/event-stream"}
    endpoint.script(ScriptedResponse(body=gzip.compress(stream), headers=headers))
    run = asked()
    await work_on(openai_agent(model="m", client=client), run)
    assert run.said == "hi"
    assert (await endpoint.request(0)).headers["accept-encoding"] == "identity"


async def test_a_server_that_refuses_to_count_is_not_asked_again(client: openai.AsyncOpenAI) -> None:
    """Where `stream_options` is refused, the response comes without usage, and later requests do not ask."""
    async with Endpoint(refuses_usage=True) as endpoint:
        agent = openai_agent(model="m", client=client.copy(base_url=endpoint.base_url))
        for _ in range(2):
            run = asked()
            await work_on(agent, run)
            assert run.said
            assert run.used == {}
        assert ["stream_options" in request.body for request in endpoint.requests] == [True, False, False]


# ---- tools


async def test_a_tool_is_called_and_its_result_told(
    agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint
) -> None:
    """The call streams into the run, the function runs, and the next request carries its result."""
    endpoint.script(
        ScriptedResponse(Text("Let me look."), ToolCall("weather", '{"city":"Lisbon"}', pieces=5)),
        ScriptedResponse(Text("Clear.")),
    )
    run = asked()
    await work_on(with_tools(agent, client, weather), run)
    assert run.parts == [
        {"kind": "text", "text": "Let me look."},
        {"kind": "tool_call", "callId": "call_0", "name": "weather", "arguments": '{"city":"Lisbon"}'},
        {"kind": "tool_result", "callId": "call_0", "output": {"city": "Lisbon", "sky": "clear"}},
        {"kind": "text", "text": "Clear."},
    ]
    assert run.message.parts[1].done
    first, second = endpoint.requests
    described = first.body["tools"][0]
    described = described["function"] if agent.api == "chat" else described
    assert (described["name"], described["parameters"]["required"]) == ("weather", ["city"])
    assert '{\\"city\\":\\"Lisbon\\",\\"sky\\":\\"clear\\"}' in str(second.body).replace('"', '\\"')
    assert run.used["inputTokens"] == 14  # of both requests


async def test_parallel_calls_run_side_by_side(
    agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint
) -> None:
    """Calls of one response do not wait for each other, and each gets its own result, although both have one
    id.
    """
    both = asyncio.Barrier(2)

    @tool
    async def meet(name: str) -> str:
        await both.wait()
        return f"{name} met"

    endpoint.script(ScriptedResponse(ToolCall("meet", '{"name":"a"}'), ToolCall("meet", '{"name":"b"}')))
    run = asked()
    await work_on(with_tools(agent, client, meet), run)
    calls = {str(part["callId"]): part["arguments"] for part in run.parts if part["kind"] == "tool_call"}
    outputs = {str(part["callId"]): str(part["output"]) for part in results(run)}
    assert sorted((str(text), outputs[call_id]) for call_id, text in calls.items()) == [
        ('{"name":"a"}', "a met"),
        ('{"name":"b"}', "b met"),
    ]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (FakeAnswer(value=True), {"output": {"city": "Lisbon", "sky": "clear"}}),
        (FakeAnswer(value={"approved": True}), {"output": {"city": "Lisbon", "sky": "clear"}}),
        (FakeAnswer(value=False), {"error": "declined by a person"}),
        (FakeAnswer(value={"approved": "yes"}), {"error": "declined by a person"}),
        (FakeAnswer("expired"), {"error": "declined: nobody approved the call in time"}),
    ],
    ids=["true", "approved", "false", "unclear", "expired"],
)
async def test_approval_decides_whether_a_tool_runs(
    agent: OpenAIAgent,
    client: openai.AsyncOpenAI,
    endpoint: Endpoint,
    answer: FakeAnswer,
    result: dict[str, JSON],
) -> None:
    """A tool that needs approval runs only after a clear yes; a no is told to the model, and the run goes on."""
    careful = Tool(weather.function, approval=True)
    endpoint.script(
        ScriptedResponse(ToolCall("weather", '{"city":"Lisbon"}', id="c7")), ScriptedResponse(Text("So be it."))
    )
    run = asked()
    run.answers.append(answer)
    await work_on(with_tools(agent, client, careful), run)
    assert run.asked == [{"kind": "approval", "call_id": "c7", "name": "weather", "input": {"city": "Lisbon"}}]
    assert results(run) == [{"kind": "tool_result", "callId": "c7", **result}]
    assert run.said == "So be it."


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (ToolCall("nothing", "{}"), "there is no tool named nothing"),
        (ToolCall("weather", '{"town":1}'), "the arguments are not valid: city: Field required"),
        (ToolCall("weather", '{"city":'), "the arguments are not valid: $: Invalid JSON"),
    ],
    ids=["unknown", "wrong", "not JSON"],
)
async def test_wrong_calls_are_told_to_the_model(
    agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint, call: ToolCall, error: str
) -> None:
    """A call that cannot be made gets an error as its result, nobody is asked, and the model goes on."""
    endpoint.script(ScriptedResponse(call), ScriptedResponse(Text("Sorry.")))
    run = asked()
    await work_on(with_tools(agent, client, Tool(weather.function, approval=True)), run)
    (told,) = results(run)
    assert str(told["error"]).startswith(error)
    assert (run.asked, run.said) == ([], "Sorry.")


async def test_endless_calls_end_the_run(agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
    """A model that calls tools in every response is stopped after the rounds it may take."""
    endpoint.script(*[ScriptedResponse(ToolCall("weather", '{"city":"L"}'))] * 3)
    run = asked()
    with pytest.raises(AgentError) as failed:
        await work_on(with_tools(agent, client, weather, max_rounds=3), run)
    assert failed.value.code == "too_many_rounds"
    assert len(endpoint.requests) == 3
    assert len({str(part["callId"]) for part in results(run)}) == 3  # the server gave all of them the same id


async def test_cancellation_reaches_the_tools(
    agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint
) -> None:
    """A run cancelled while its tools work cancels all of them, and asks the model nothing more."""
    started = asyncio.Barrier(3)
    stopped: list[str] = []

    @tool
    async def work(name: str) -> None:
        await started.wait()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(name)

    endpoint.script(ScriptedResponse(ToolCall("work", '{"name":"a"}'), ToolCall("work", '{"name":"b"}')))
    task = work_on(with_tools(agent, client, work), asked())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (sorted(stopped), len(endpoint.requests)) == (["a", "b"], 1)


# ---- stop and steer


async def test_cancel_closes_upstream_at_once(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """When the cancelled task is done, its connection is closed; the server bills nothing after that."""
    endpoint.script(ScriptedResponse(Text("one"), Hold(), *[Text("more")] * 100))
    run = asked()
    task = work_on(agent, run)
    await run.spoke.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    request = await endpoint.request(0)
    await request.closed.wait()
    endpoint.release()
    await request.done.wait()
    assert (request.billed, request.finished, run.said) == (1, False, "one")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancel_before_the_response_begins_closes_upstream(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """A stop while the server is still thinking, before any byte of a response, closes the connection too."""
    endpoint.script(ScriptedResponse(Text("too late"), late=True))
    task = work_on(agent, asked())
    request = await endpoint.request(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await request.closed.wait()
    await request.done.wait()
    assert request.billed == 0


class HeldRun(FakeRun):
    """A run whose log is slow: each text waits until the end of time."""

    async def text(self, delta: str) -> None:
        """Never returns."""
        await super().text(delta)
        await asyncio.Event().wait()


async def test_cancel_closes_upstream_while_the_log_holds_back(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """A stop closes the connection also when the agent is waiting for the store and not for the model."""
    endpoint.script(ScriptedResponse(Text("one"), Hold()))
    run = HeldRun([user("hello")])
    task = work_on(agent, run)
    await run.spoke.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    request = await endpoint.request(0)
    await request.closed.wait()
    assert request.finished is False


class RefusingRun(FakeRun):
    """A run that has ended elsewhere: what it is given is refused."""

    async def text(self, delta: str) -> None:
        """Always raises."""
        raise ValueError("the run has ended")


async def test_a_refused_chunk_closes_upstream(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """When the run does not take a chunk, the connection closes and the error is the run's own."""
    endpoint.script(ScriptedResponse(Text("one"), Hold()))
    task = work_on(agent, RefusingRun([user("hello")]))
    with pytest.raises(ValueError, match="has ended"):
        await task
    await (await endpoint.request(0)).closed.wait()


async def test_a_steered_run_is_asked_with_its_partial(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """Called again after a steer, the agent shows the model what was said, the steer, and goes on behind it."""
    endpoint.script(ScriptedResponse(Text("One, two, "), Hold()), ScriptedResponse(Text("trois.")))
    run = asked()
    task = work_on(agent, run)
    await run.spoke.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    run.steer("in French")
    await work_on(agent, run)
    body = (await endpoint.request(1)).body
    assert [(item["role"], item["content"]) for item in body["messages" if agent.api == "chat" else "input"]] == [
        ("user", "hello"),
        ("assistant", "One, two, "),
        ("user", "in French"),
    ]
    assert run.said == "One, two, trois."


async def test_a_steer_is_taken_between_two_rounds(
    agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint
) -> None:
    """A steer that waits for a boundary is in the request that carries the tools' results, behind them."""
    endpoint.script(ScriptedResponse(ToolCall("weather", '{"city":"Lisbon"}')), ScriptedResponse(Text("Claro.")))
    run = asked()
    run.waiting_steers.append("in Portuguese")
    await work_on(with_tools(agent, client, weather), run)
    body = (await endpoint.request(1)).body
    assert body["messages" if agent.api == "chat" else "input"][-1] == {"role": "user", "content": "in Portuguese"}
    assert [part["kind"] for part in run.parts] == ["tool_call", "tool_result", "steer", "text"]


async def test_a_run_steered_within_a_call_is_accepted(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """A run interrupted in the middle of a call's argument text leaves a history that the strict server
    accepts.
    """
    cut = {
        "chat": b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":'
        b'{"name":"weather","arguments":"{\\"ci"}}]}}]}\n\n',
        "responses": b'data: {"type":"response.output_item.added","output_index":1,"item":{"type":"function_call",'
        b'"call_id":"c","name":"weather","arguments":""}}\n\n'
        b'data: {"type":"response.function_call_arguments.delta","output_index":1,"delta":"{\\"ci"}\n\n',
    }
    endpoint.script(ScriptedResponse(Raw(cut[agent.api]), Text("x"), Hold()), ScriptedResponse(Text("Fine.")))
    run = asked()
    task = work_on(agent, run)
    await run.spoke.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.parts[0] == {"kind": "tool_call", "callId": "c", "name": "weather", "arguments": '{"ci'}
    run.steer("forget it")
    await work_on(agent, run)
    assert run.said == "xFine."
