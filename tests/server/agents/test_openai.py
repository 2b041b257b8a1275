"""The openai agent, with the real package, against a local model server."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import openai
import pytest

from holdfast.protocol import JSON, Part
from holdfast.server.agents.errors import AgentError
from holdfast.server.agents.openai import OpenAIAgent, openai_agent, openai_configured
from holdfast.server.agents.tools import Tool, tool
from tests.openai_endpoint import Answer, Endpoint
from tests.openai_wire import Drop, End, Fail, Hold, Raw, Reasoning, Text, ToolCall
from tests.server.agents.fake_run import FakeAnswer, FakeRun, user

KEY = "sk-secret-0123456789"


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A model server."""
    async with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def client(endpoint: Endpoint) -> AsyncIterator[openai.AsyncOpenAI]:
    """The package's client, as the agent makes it, but one that does not retry."""
    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(api_key=KEY, base_url=endpoint.base_url, http_client=http, max_retries=0) as client:
        yield client


@pytest.fixture(params=["chat", "responses"])
def agent(request: pytest.FixtureRequest, client: openai.AsyncOpenAI) -> OpenAIAgent:
    """An agent without tools, for each of the two APIs."""
    return openai_agent(model="m", api=request.param, client=client)


def with_tools(agent: OpenAIAgent, client: openai.AsyncOpenAI, *tools: Tool, **more: Any) -> OpenAIAgent:
    """The same agent with tools."""
    return openai_agent(model="m", api=agent.api, client=client, tools=tools, **more)


def answer_to(agent: OpenAIAgent, run: FakeRun) -> asyncio.Task[None]:
    """The agent at work."""

    async def work() -> None:
        await agent(cast("Any", run))

    return asyncio.create_task(work(), name="agent")


def asked() -> FakeRun:
    """A run that was asked something."""
    return FakeRun([user("hello")])


def results(run: FakeRun) -> list[Part]:
    """The results of the run's tool calls."""
    return [part for part in run.parts if part["kind"] == "tool_result"]


@tool
async def weather(city: str) -> dict[str, JSON]:
    """Look up the weather of a city."""
    return {"city": city, "sky": "clear"}


# ---- answers


async def test_text_and_reasoning_arrive_in_order(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """What the model reasons and says is what the run holds, and its tokens are counted."""
    endpoint.script(Answer(Reasoning("Let me "), Reasoning("see."), Text("Grüße"), Text(" 👋")))
    run = asked()
    await answer_to(agent, run)
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
    endpoint.script(Answer(Text("first"), Hold(), Text(" second")))
    run = asked()
    task = answer_to(agent, run)
    await run.spoke.wait()
    assert run.said == "first"
    endpoint.release()
    await task
    assert run.said == "first second"


async def test_instructions_and_options_are_in_the_request(
    agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint
) -> None:
    """Instructions go where each API wants them, options are further fields; nothing is stored upstream."""
    await answer_to(with_tools(agent, client, instructions="Be brief.", options={"temperature": 0}), asked())
    body = (await endpoint.request(0)).body
    assert body["temperature"] == 0
    assert "tools" not in body
    if agent.api == "chat":
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    else:
        assert (body["instructions"], body["store"]) == ("Be brief.", False)


async def test_connections_are_used_again(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """One run after the other goes over one connection: the end of each answer is read."""
    for _ in range(3):
        await answer_to(agent, asked())
    assert endpoint.connections == 1


async def test_compressed_answers_are_read(client: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
    """A server that compresses, although it was asked not to, is understood."""
    stream = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    headers = {"content-encoding": "gzip", "content-type": "text/event-stream"}
    endpoint.script(Answer(body=gzip.compress(stream), headers=headers))
    run = asked()
    await answer_to(openai_agent(model="m", client=client), run)
    assert run.said == "hi"
    assert (await endpoint.request(0)).headers["accept-encoding"] == "identity"


async def test_a_server_that_refuses_to_count_is_not_asked_again(client: openai.AsyncOpenAI) -> None:
    """Where `stream_options` is refused, the answer comes without usage, and later requests do not ask."""
    async with Endpoint(refuses_usage=True) as endpoint:
        agent = openai_agent(model="m", client=client.copy(base_url=endpoint.base_url))
        for _ in range(2):
            run = asked()
            await answer_to(agent, run)
            assert run.said
            assert run.used == {}
        assert ["stream_options" in request.body for request in endpoint.requests] == [True, False, False]


# ---- tools


async def test_a_tool_is_called_and_its_result_told(
    agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint
) -> None:
    """The call streams into the run, the function runs, and the next request carries its result."""
    endpoint.script(
        Answer(Text("Let me look."), ToolCall("weather", '{"city":"Lisbon"}', pieces=5)), Answer(Text("Clear."))
    )
    run = asked()
    await answer_to(with_tools(agent, client, weather), run)
    assert run.parts == [
        {"kind": "text", "text": "Let me look."},
        {"kind": "tool_call", "callId": "call_0", "name": "weather", "arguments": '{"city":"Lisbon"}'},
        {"kind": "tool_result", "callId": "call_0", "output": {"city": "Lisbon", "sky": "clear"}},
        {"kind": "text", "text": "Clear."},
    ]
    assert run.answer.parts[1].done
    first, second = endpoint.requests
    described = first.body["tools"][0]
    described = described["function"] if agent.api == "chat" else described
    assert (described["name"], described["parameters"]["required"]) == ("weather", ["city"])
    assert '{\\"city\\":\\"Lisbon\\",\\"sky\\":\\"clear\\"}' in str(second.body).replace('"', '\\"')
    assert run.used["inputTokens"] == 14  # of both requests


async def test_parallel_calls_run_side_by_side(
    agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint
) -> None:
    """Calls of one answer do not wait for each other, and each gets its own result, although both have one
    id.
    """
    both = asyncio.Barrier(2)

    @tool
    async def meet(name: str) -> str:
        await both.wait()
        return f"{name} met"

    endpoint.script(Answer(ToolCall("meet", '{"name":"a"}'), ToolCall("meet", '{"name":"b"}')))
    run = asked()
    await answer_to(with_tools(agent, client, meet), run)
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
    endpoint.script(Answer(ToolCall("weather", '{"city":"Lisbon"}', id="c7")), Answer(Text("So be it.")))
    run = asked()
    run.answers.append(answer)
    await answer_to(with_tools(agent, client, careful), run)
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
    endpoint.script(Answer(call), Answer(Text("Sorry.")))
    run = asked()
    await answer_to(with_tools(agent, client, Tool(weather.function, approval=True)), run)
    (told,) = results(run)
    assert str(told["error"]).startswith(error)
    assert (run.asked, run.said) == ([], "Sorry.")


async def test_endless_calls_end_the_run(agent: OpenAIAgent, client: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
    """A model that calls tools in every answer is stopped after the rounds it may take."""
    endpoint.script(*[Answer(ToolCall("weather", '{"city":"L"}'))] * 3)
    run = asked()
    with pytest.raises(AgentError) as failed:
        await answer_to(with_tools(agent, client, weather, max_rounds=3), run)
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

    endpoint.script(Answer(ToolCall("work", '{"name":"a"}'), ToolCall("work", '{"name":"b"}')))
    task = answer_to(with_tools(agent, client, work), asked())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (sorted(stopped), len(endpoint.requests)) == (["a", "b"], 1)


# ---- stop and steer


async def test_cancel_closes_upstream_at_once(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """When the cancelled task is done, its connection is closed; the server bills nothing after that."""
    endpoint.script(Answer(Text("one"), Hold(), *[Text("more")] * 100))
    run = asked()
    task = answer_to(agent, run)
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


async def test_cancel_before_the_answer_begins_closes_upstream(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """A stop while the server is still thinking, before any byte of an answer, closes the connection too."""
    endpoint.script(Answer(Text("too late"), late=True))
    task = answer_to(agent, asked())
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
    endpoint.script(Answer(Text("one"), Hold()))
    run = HeldRun([user("hello")])
    task = answer_to(agent, run)
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
    endpoint.script(Answer(Text("one"), Hold()))
    task = answer_to(agent, RefusingRun([user("hello")]))
    with pytest.raises(ValueError, match="has ended"):
        await task
    await (await endpoint.request(0)).closed.wait()


async def test_a_steered_run_is_asked_with_its_partial(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """Called again after a steer, the agent shows the model what was said, the steer, and goes on behind it."""
    endpoint.script(Answer(Text("One, two, "), Hold()), Answer(Text("trois.")))
    run = asked()
    task = answer_to(agent, run)
    await run.spoke.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    run.steer("in French")
    await answer_to(agent, run)
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
    endpoint.script(Answer(ToolCall("weather", '{"city":"Lisbon"}')), Answer(Text("Claro.")))
    run = asked()
    run.waiting_steers.append("in Portuguese")
    await answer_to(with_tools(agent, client, weather), run)
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
    endpoint.script(Answer(Raw(cut[agent.api]), Text("x"), Hold()), Answer(Text("Fine.")))
    run = asked()
    task = answer_to(agent, run)
    await run.spoke.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.parts[0] == {"kind": "tool_call", "callId": "c", "name": "weather", "arguments": '{"ci'}
    run.steer("forget it")
    await answer_to(agent, run)
    assert run.said == "xFine."


# ---- errors


@pytest.mark.parametrize(
    ("status", "error", "code", "retryable"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}, "upstream_auth", False),
        (403, {"message": "no"}, "upstream_auth", False),
        (404, {"message": "no such thing", "code": "model_not_found"}, "upstream_not_found", False),
        (429, {"message": "slow down", "code": "rate_limit_exceeded"}, "upstream_rate_limited", True),
        (429, {"message": "pay", "code": "insufficient_quota"}, "upstream_quota", False),
        (400, {"message": "far too long", "code": "context_length_exceeded"}, "context_length", False),
        (400, {"message": "This model's maximum context length is 8192 tokens."}, "context_length", False),
        (400, {"message": "stream_options is fine, temperature is not"}, "upstream_rejected", False),
        (500, {"message": "oops"}, "upstream_unavailable", True),
        (504, {"message": "oops"}, "upstream_timeout", True),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_refusals_have_a_code_and_a_safe_message(
    agent: OpenAIAgent,
    endpoint: Endpoint,
    status: int,
    error: dict[str, JSON],
    code: str,
    retryable: bool,
) -> None:
    """Each refusal of the server is one typed error, whose message quotes nothing of the server's."""
    endpoint.script(*[Answer(status=status, error=error)] * 2)
    with pytest.raises(AgentError) as failed:
        await answer_to(agent, asked())
    assert (failed.value.code, failed.value.retryable) == (code, retryable)
    assert str(error["message"]) not in str(failed.value)
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Fail("boom: sk-secret", code="rate_limit_exceeded"), "upstream_rate_limited"),
        (Fail("boom: sk-secret"), "upstream_unavailable"),
        (Fail("bad", type="invalid_request_error"), "upstream_rejected"),
        (Drop(), "upstream_disconnected"),
        (End(), "upstream_incomplete"),
        (Raw(b"data: {not json\n\n"), "upstream_invalid"),
        (Raw(b"data: 17\n\n"), "upstream_invalid"),
        (Raw(b"event: error\ndata: out of memory\n\n"), "upstream_unavailable"),
        (Raw(b'event: error\ndata: {"code": 429}\n\n'), "upstream_rate_limited"),
    ],
    ids=["code", "type", "request", "drop", "end", "not JSON", "no object", "named", "numbered"],
)
async def test_errors_in_the_middle_keep_what_was_said(
    agent: OpenAIAgent, endpoint: Endpoint, step: Fail | Drop | End | Raw, code: str
) -> None:
    """An answer that fails half-way fails the run with a typed error, behind the text that had come."""
    endpoint.script(Answer(Text("half "), Hold(), step))
    run = asked()
    task = answer_to(agent, run)
    await run.spoke.wait()
    endpoint.release()
    with pytest.raises(AgentError) as failed:
        await task
    assert (failed.value.code, run.said) == (code, "half ")
    assert "secret" not in str(failed.value)
    assert failed.value.__suppress_context__ or failed.value.__context__ is None


async def test_text_before_an_error_in_one_read_is_kept(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """Text that came in the same packet as an error is passed on before the run fails."""
    endpoint.script(Answer(Text("half "), Fail("boom")))
    run = asked()
    with pytest.raises(AgentError):
        await answer_to(agent, run)
    assert run.said == "half "


async def test_failed_responses_say_why(client: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
    """`response.failed` carries its error within the response, and its usage counts."""
    failed = (
        b'data: {"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"x"},'
        b'"usage":{"input_tokens":3,"output_tokens":0,"total_tokens":3}}}\n\n'
    )
    endpoint.script(Answer(Raw(failed)))
    run = asked()
    with pytest.raises(AgentError) as error:
        await answer_to(openai_agent(model="m", api="responses", client=client), run)
    assert (error.value.code, run.used["inputTokens"]) == ("upstream_rate_limited", 3)


async def test_a_server_that_is_not_there_is_unreachable(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """Nobody listening is a typed error that may be retried."""
    await endpoint.__aexit__()
    with pytest.raises(AgentError) as failed:
        await answer_to(agent, asked())
    assert (failed.value.code, failed.value.retryable) == ("upstream_unreachable", True)


async def test_the_package_retries(client: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
    """A refusal that the package retries is not seen by the run."""
    endpoint.script(Answer(status=503, error={"message": "busy"}, headers={"retry-after-ms": "1"}))
    run = asked()
    await answer_to(openai_agent(model="m", client=client.with_options(max_retries=1)), run)
    assert run.said
    assert len(endpoint.requests) == 2


# ---- configuration


async def test_the_environment_configures_the_agent(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address alone is enough for a server without keys; the agent closes the client it made, and makes
    another.
    """
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("HOLDFAST_OPENAI_MODEL", "small")
    monkeypatch.setenv("HOLDFAST_OPENAI_API", "responses")
    assert openai_configured()
    agent = openai_agent()
    for number in range(2):
        await answer_to(agent, asked())
        request = await endpoint.request(number)
        assert (request.path, request.body["model"]) == ("/v1/responses", "small")
        await agent.aclose()
        await request.closed.wait()


async def test_what_is_not_configured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither model nor key nor a known API: each is a typed error, at the start where it can be known then."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HOLDFAST_OPENAI_MODEL", "HOLDFAST_OPENAI_API"):
        monkeypatch.delenv(name, raising=False)
    assert not openai_configured()
    with pytest.raises(AgentError, match="HOLDFAST_OPENAI_MODEL"):
        openai_agent()
    with pytest.raises(AgentError) as failed:
        await answer_to(openai_agent(model="m"), asked())
    assert failed.value.code == "not_configured"
    monkeypatch.setenv("HOLDFAST_OPENAI_API", "completions")
    with pytest.raises(AgentError, match="chat, responses"):
        openai_agent(model="m")
    with pytest.raises(ValueError, match="same name"):
        openai_agent(model="m", api="chat", tools=[weather, weather])


async def test_the_users_client_stays_open(client: openai.AsyncOpenAI) -> None:
    """Closing the agent does not close a client that it was given."""
    await openai_agent(model="m", client=client).aclose()
    assert not client.is_closed()


def test_the_endpoint_is_a_program() -> None:
    """Started by its path, it says where it listens: what the benchmarks and a curious person need."""
    path = Path(__file__).parents[2] / "openai_endpoint.py"
    with subprocess.Popen([sys.executable, path, "--port", "0"], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline().startswith("OPENAI_BASE_URL=http://127.0.0.1:")
        program.terminate()
