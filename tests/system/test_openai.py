"""The openai agent, chosen by the package's own environment, against a model server as strict as the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest

from holdfast.client import connect
from tests.support.openai_endpoint import Endpoint, ScriptedResponse
from tests.support.openai_streams import Hold, Text, ToolCall
from tests.support.program import SECONDS, Serve, command, heard, holdfast, outcome, run_id_of, started
from tests.support.python_client import ended, read, until


@pytest.fixture
async def endpoint() -> AsyncGenerator[Endpoint]:
    """The model server."""
    async with Endpoint() as endpoint:
        yield endpoint


def environment(endpoint: Endpoint, **more: str) -> Mapping[str, str]:
    """What a person sets to use it."""
    return {
        "OPENAI_BASE_URL": endpoint.base_url,
        "OPENAI_API_KEY": "sk-test",
        "HOLDFAST_OPENAI_MODEL": "some-model",
        **more,
    }


def serving(cwd: Path, endpoint: Endpoint, **more: str) -> Serve:
    """A server that uses it."""
    return Serve(cwd=cwd, env=environment(endpoint, **more))


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_say_stop_and_go_on(tmp_path: Path, endpoint: Endpoint, api: str) -> None:
    """A message is streamed; a stop closes the connection to the model, which bills no more; and what was kept of the
    stopped message is in the next request.
    """
    endpoint.script(
        ScriptedResponse(Text("Good "), Text("morning")),
        ScriptedResponse(Text("one "), Text("two "), Hold(), Text("three")),
        ScriptedResponse(Text("Fine.")),
    )
    with serving(tmp_path, endpoint, HOLDFAST_OPENAI_API=api) as server:
        assert "agents: openai, demo" in "".join(server.out.said)
        greeted = await holdfast("send", "hello", server=server)
        assert (greeted.code, greeted.out) == (0, "Good morning\n")
        async with started(command("send", "count", server=server)) as sender:
            run_id = await run_id_of(sender)
            assert await heard(sender, "two ") == "one two "
            request = await endpoint.request(1)
            stopped = await holdfast("cancel", run_id, server=server)
            assert stopped.out == f"{run_id} is stopped.\n"
            async with asyncio.timeout(SECONDS):
                await request.closed.wait()
            assert (await outcome(sender)).code == 130
        endpoint.release()
        async with asyncio.timeout(SECONDS):
            await request.done.wait()
        assert (request.billed, request.finished) == (2, False)
        assert request.body["model"] == "some-model"
        again = await holdfast("send", "and now?", server=server)
        assert (again.code, again.out) == (0, "Fine.\n")
        said = [message["content"] for message in _messages(endpoint.requests[2].body)]
        assert [_text(content) for content in said] == ["hello", "Good morning", "count", "one two ", "and now?"]


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_steer(tmp_path: Path, endpoint: Endpoint, api: str) -> None:
    """A steer from another device ends the call in flight; the next one has the partial message and the steer."""
    endpoint.script(ScriptedResponse(Text("In Lisbon "), Hold()), ScriptedResponse(Text("In Porto.")))
    with serving(tmp_path, endpoint, HOLDFAST_OPENAI_API=api) as server:
        async with (
            connect(server.url, session="trip", device="phone") as phone,
            connect(server.url, session="trip", device="laptop") as laptop,
        ):
            run = await phone.send("Plan a day")
            await until(laptop, lambda: laptop.run(run.id).text == "In Lisbon ")
            assert (await laptop.run(run.id).steer("Porto rather")).outcome == "accepted"
            result = await ended(run)
        assert (result.reason, result.text) == ("completed", "In Lisbon In Porto.")
        first, second = endpoint.requests
        assert (first.billed, first.finished) == (1, False)
        said = [_text(message["content"]) for message in _messages(second.body)]
        assert said == ["Plan a day", "In Lisbon ", "Porto rather"]


OWN_TOOLS = '''
from pathlib import Path
from holdfast.server import Server
from holdfast.server.agents.openai import openai_agent
from holdfast.server.agents.tools import tool


@tool(approval=True)
def delete_note(name: str) -> str:
    """Deletes a note."""
    Path(name).unlink()
    return f"{name} is gone"


server = Server()
server.add_agent("assistant", openai_agent(model="some-model", tools=[delete_note]))
'''


@pytest.mark.parametrize("approved", [True, False])
async def test_a_tool_waits_for_another_device(tmp_path: Path, endpoint: Endpoint, approved: bool) -> None:
    """A tool of the user's own module runs only after another device has agreed; the model is told what came of it."""
    (tmp_path / "notes.py").write_text(OWN_TOOLS)
    note = tmp_path / "draft.txt"
    note.write_text("Dear all,")
    endpoint.script(
        ScriptedResponse(Text("Let me see."), ToolCall("delete_note", '{"name": "draft.txt"}')),
        ScriptedResponse(Text("Done.")),
    )
    model = {"OPENAI_BASE_URL": endpoint.base_url, "OPENAI_API_KEY": "sk-test"}
    with Serve("notes:server", cwd=tmp_path, env=model) as server:
        async with (
            connect(server.url, session="s", device="phone") as phone,
            connect(server.url, session="s", device="laptop") as laptop,
        ):
            run = await phone.send("Delete my draft")
            there = laptop.run(run.id)
            await until(laptop, lambda: there.status == "waiting")
            assert note.exists()
            request = there.requests[0]
            assert (request["kind"], request.get("name")) == ("approval", "delete_note")
            assert (await there.answer(request["id"], approved)).outcome == "accepted"
            late = await phone.answer(run.id, request["id"], not approved)
            assert late.outcome in ("already_answered", "already_ended")
            assert await read(aiter(run)) == "Let me see.Done."
            assert note.exists() is not approved
        result = endpoint.requests[1].body["messages"][-1]
        assert result["role"] == "tool"
        assert ("is gone" in result["content"]) is approved


async def test_a_model_server_that_refuses(tmp_path: Path, endpoint: Endpoint) -> None:
    """What the model server refuses fails the run with a sentence and exit code 1; the key is never shown."""
    endpoint.script(
        ScriptedResponse(status=401, error={"message": "Incorrect API key", "type": "x", "code": "invalid_api_key"})
    )
    with serving(tmp_path, endpoint) as server:
        failed = await holdfast("send", "hello", server=server)
        assert failed.code == 1
        assert "failed:" in failed.err
        assert "Traceback" not in failed.err
        server.kill()
        assert "sk-test" not in failed.err + "".join(server.log.said)


def _messages(body: Mapping[str, Any]) -> list[Any]:
    messages: list[Any] = body.get("messages") or body.get("input") or []
    return messages


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
