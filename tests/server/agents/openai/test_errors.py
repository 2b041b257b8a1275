"""What goes wrong with a model server, and what is configured wrongly, is said in typed and safe errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openai
import pytest

from holdfast.protocol import JSON
from holdfast.server.agents.openai import OpenAIAgent, openai_agent
from holdfast.server.agents.tools import tool
from holdfast.server.errors import AgentError
from tests.support.fake_run import KEY, asked, work_on
from tests.support.openai_endpoint import Endpoint, ScriptedResponse
from tests.support.openai_streams import Drop, End, Fail, Hold, Raw, Text


@tool
def weather(city: str) -> str:
    """Look up the weather of a city."""
    return f"clear over {city}"


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
    endpoint.script(*[ScriptedResponse(status=status, error=error)] * 2)
    with pytest.raises(AgentError) as failed:
        await work_on(agent, asked())
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
    """A response that fails half-way fails the run with a typed error, behind the text that had come."""
    endpoint.script(ScriptedResponse(Text("half "), Hold(), step))
    run = asked()
    task = work_on(agent, run)
    await run.spoke.wait()
    endpoint.release()
    with pytest.raises(AgentError) as failed:
        await task
    assert (failed.value.code, run.said) == (code, "half ")
    assert "secret" not in str(failed.value)
    assert failed.value.__suppress_context__ or failed.value.__context__ is None


async def test_text_before_an_error_in_one_read_is_kept(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """Text that came in the same packet as an error is passed on before the run fails."""
    endpoint.script(ScriptedResponse(Text("half "), Fail("boom")))
    run = asked()
    with pytest.raises(AgentError):
        await work_on(agent, run)
    assert run.said == "half "


async def test_failed_responses_say_why(client: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
    """`response.failed` carries its error within the response, and its usage counts."""
    failed = (
        b'data: {"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"x"},'
        b'"usage":{"input_tokens":3,"output_tokens":0,"total_tokens":3}}}\n\n'
    )
    endpoint.script(ScriptedResponse(Raw(failed)))
    run = asked()
    with pytest.raises(AgentError) as error:
        await work_on(openai_agent(model="m", api="responses", client=client), run)
    assert (error.value.code, run.used["inputTokens"]) == ("upstream_rate_limited", 3)


async def test_a_server_that_is_not_there_is_unreachable(agent: OpenAIAgent, endpoint: Endpoint) -> None:
    """Nobody listening is a typed error that may be retried."""
    await endpoint.__aexit__()
    with pytest.raises(AgentError) as failed:
        await work_on(agent, asked())
    assert (failed.value.code, failed.value.retryable) == ("upstream_unreachable", True)


async def test_the_package_retries(client: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
    """A refusal that the package retries is not seen by the run."""
    endpoint.script(ScriptedResponse(status=503, error={"message": "busy"}, headers={"retry-after-ms": "1"}))
    run = asked()
    await work_on(openai_agent(model="m", client=client.with_options(max_retries=1)), run)
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
    agent = openai_agent()
    for number in range(2):
        await work_on(agent, asked())
        request = await endpoint.request(number)
        assert (request.path, request.body["model"]) == ("/v1/responses", "small")
        await agent.aclose()
        await request.closed.wait()


async def test_what_is_not_configured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither model nor key nor a known API: each is a typed error, at the start where it can be known then."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HOLDFAST_OPENAI_MODEL", "HOLDFAST_OPENAI_API"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AgentError, match="HOLDFAST_OPENAI_MODEL"):
        openai_agent()
    with pytest.raises(AgentError) as failed:
        await work_on(openai_agent(model="m"), asked())
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
    path = Path(__file__).parents[3] / "support" / "openai_endpoint.py"
    with subprocess.Popen([sys.executable, path, "--port", "0"], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline().startswith("OPENAI_BASE_URL=http://127.0.0.1:")
        program.terminate()
