"""The agent that answers through any OpenAI-compatible model server.

    server.agent("assistant")(openai_agent(model="…", tools=[weather]))

It goes through the official package, which brings authentication, retries and the forms of errors, but reads
the bytes of the response itself: building the package's typed objects costs three to six times as much (see
benchmarks/openai_stream.py). What one read from the network brings is passed on at once, as one piece.

Every request is made from `run.messages` and nothing else, so the agent may be called again at any time:
after a steer, on another attempt. The upstream response is closed on every way out, cancellation included,
before anything else is awaited: a model server bills until it sees the connection close.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, cast, get_args

import openai
import orjson
import structlog
from pydantic import JsonValue

from holdfast.protocol.values import JSON, is_id
from holdfast.server.agents.openai.errors import request_error, upstream_error
from holdfast.server.agents.openai.sse import EventTooLargeError, SseParser
from holdfast.server.agents.openai.stream import (
    Call,
    CallDelta,
    ChatReader,
    Delta,
    Reader,
    ResponsesReader,
    Source,
    TextDelta,
)
from holdfast.server.agents.prompt import chat_completions, parse_json, responses_input
from holdfast.server.agents.tools import Tool
from holdfast.server.errors import AgentError, ToolError

if TYPE_CHECKING:
    from holdfast.protocol.events import Message
    from holdfast.server.agents.run import Run

Api: TypeAlias = Literal["chat", "responses"]

MAX_ROUNDS: Final = 16
"""How many responses a run may take when each of them calls tools."""
USAGE_KEPT: Final = 4096
"""Of how many runs the usage is kept, the latest called: a run steered after as many others began counts
anew.
"""
DRAIN_SECONDS: Final = 0.1
"""How long the end of a whole response is awaited, so that its connection can serve the next request."""

# A compressed stream could be cut only where the compressor flushed; nothing is gained by it at these sizes.
_HEADERS: Final = {"Accept-Encoding": "identity"}

_log = structlog.stdlib.get_logger(__name__)


def openai_agent(
    *,
    model: str | None = None,
    api: Api | None = None,
    client: openai.AsyncOpenAI | None = None,
    tools: Sequence[Tool] = (),
    instructions: str | None = None,
    options: Mapping[str, JSON] | None = None,
    max_rounds: int = MAX_ROUNDS,
    approval_expires_ms: int | None = None,
) -> OpenAIAgent:
    """An agent that speaks through any OpenAI-compatible model server.

    `model`: its name there; by default HOLDFAST_OPENAI_MODEL.
    `api`: `chat` (completions) or `responses`; by default HOLDFAST_OPENAI_API, or `chat`.
    `client`: what requests go through; by default one made from OPENAI_API_KEY and OPENAI_BASE_URL at the first run.
    `tools`: what the model may call.
    `instructions`: the system message, or what the API has for it; none by default.
    `options`: further fields of every request (`temperature`, `reasoning`, …).
    `max_rounds`: how many requests a run may take when the model calls tools in each; then it fails.
    `approval_expires_ms`: how long a person may take to approve a tool; for ever by default.

    Raises AgentError `not_configured` where no model is named, and ValueError for tools of the same name.
    """
    model = model or os.environ.get("HOLDFAST_OPENAI_MODEL")
    if not model:
        raise AgentError("not_configured", "No model is named. Set HOLDFAST_OPENAI_MODEL.")
    chosen = api or os.environ.get("HOLDFAST_OPENAI_API") or "chat"
    if chosen not in get_args(Api):
        raise AgentError("not_configured", "HOLDFAST_OPENAI_API is one of: chat, responses.")
    by_name = {tool.name: tool for tool in tools}
    if len(by_name) < len(tools):
        raise ValueError("two tools have the same name")
    return OpenAIAgent(
        model=model,
        api=cast("Api", chosen),
        client=client,
        tools=by_name,
        instructions=instructions,
        options=options or {},
        max_rounds=max_rounds,
        approval_expires_ms=approval_expires_ms,
    )


class OpenAIAgent:
    """What `openai_agent` makes: called with a Run, it works on it. One instance serves any number of runs at
    once.

    `aclose` closes the connections of a client that the agent made itself.
    """

    def __init__(
        self,
        *,
        model: str,
        api: Api,
        client: openai.AsyncOpenAI | None,
        tools: Mapping[str, Tool],
        instructions: str | None,
        options: Mapping[str, JSON],
        max_rounds: int,
        approval_expires_ms: int | None,
    ) -> None:
        self.model = model
        self.api: Api = api
        self._client = client
        self._owns_client = client is None
        self._tools = tools
        self._instructions = instructions
        self._options = options
        self._max_rounds = max_rounds
        self._approval_expires_ms = approval_expires_ms
        self._usage: dict[tuple[str, str], dict[str, JSON]] = {}
        self._asks_for_usage = True  # until a server refuses to be asked

    async def aclose(self) -> None:
        """Closes the client if it is the agent's own; the next run makes another."""
        if self._owns_client and self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def __call__(self, run: Run) -> None:
        """Works on `run`: asks the model, runs the tools it calls, until it calls none.

        Raises AgentError where the model server fails, or after `max_rounds` responses that all called tools.
        """
        usage = self._usage_of(run)
        for _ in range(self._max_rounds):
            calls = await self._answer(run, usage)
            if not calls:
                return
            await self._call_tools(run, calls)
            await run.steers()  # a boundary: what was steered meanwhile is in the next request
        raise AgentError("too_many_rounds", f"The model kept calling tools for {self._max_rounds} rounds.")

    def _usage_of(self, run: Run) -> dict[str, JSON]:
        """What the run has used in earlier calls of the agent, to go on counting from."""
        usage = self._usage.pop((run.session_id, run.run_id), {"model": self.model})
        self._usage[run.session_id, run.run_id] = usage
        if len(self._usage) > USAGE_KEPT:
            del self._usage[next(iter(self._usage))]
        return usage

    async def _answer(self, run: Run, usage: dict[str, JSON]) -> dict[str, Call]:
        """One response of the model, passed on to `run` as it comes; the calls it ends with, by their id in the
        run.
        """
        messages = run.messages
        reader: Reader = ChatReader() if self.api == "chat" else ResponsesReader()
        passing = _Passing(run, _call_ids(messages, run.run_id))
        try:
            async with AsyncExitStack() as stack:
                response = await self._open(messages, stack)
                body = await stack.enter_async_context(aclosing(_body(response)))
                await _read(body, reader, passing)
        except openai.OpenAIError as error:
            raise self._explained(error, run) from None
        finally:
            if reader.usage is not None:
                _add(usage, reader.usage)
                await run.usage(usage)
        return {passing.ids[call]: call for call in reader.calls}

    async def _open(self, messages: Sequence[Message], stack: AsyncExitStack) -> _Response:
        """The response to a request made from `messages`; `stack` closes it."""
        if self.api == "responses":
            return await stack.enter_async_context(self._responses(messages))
        try:
            return await stack.enter_async_context(self._chat(messages))
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if not self._asks_for_usage or not ("stream_options" in str(error) or "include_usage" in str(error)):
                raise
        self._asks_for_usage = False
        return await stack.enter_async_context(self._chat(messages))

    def _chat(self, messages: Sequence[Message]) -> AbstractAsyncContextManager[_Response]:
        history = chat_completions(messages)
        if self._instructions:
            history.insert(0, {"role": "system", "content": self._instructions})
        more: dict[str, Any] = {}
        if self._asks_for_usage:
            more["stream_options"] = {"include_usage": True}
        if self._tools:
            more["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.schema,
                    },
                }
                for tool in self._tools.values()
            ]
        return self._own_client().chat.completions.with_streaming_response.create(
            model=self.model,
            messages=cast("Any", history),
            stream=True,
            extra_headers=_HEADERS,
            extra_body=self._options or None,
            **more,
        )

    def _responses(self, messages: Sequence[Message]) -> AbstractAsyncContextManager[_Response]:
        more: dict[str, Any] = {}
        if self._instructions:
            more["instructions"] = self._instructions
        if self._tools:
            more["tools"] = [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.schema,
                    "strict": False,  # strict schemas allow no defaults
                }
                for tool in self._tools.values()
            ]
        return self._own_client().responses.with_streaming_response.create(
            model=self.model,
            input=cast("Any", responses_input(messages)),
            store=False,  # the session is the only history
            stream=True,
            extra_headers=_HEADERS,
            extra_body=self._options or None,
            **more,
        )

    def _own_client(self) -> openai.AsyncOpenAI:
        if self._client is None:
            # Local servers ask for no key, but the package does.
            keyless = os.environ.get("OPENAI_BASE_URL") and not os.environ.get("OPENAI_API_KEY")
            self._client = openai.AsyncOpenAI(
                api_key="none" if keyless else None, http_client=openai.DefaultAioHttpClient()
            )
        return self._client

    async def _call_tools(self, run: Run, calls: Mapping[str, Call]) -> None:
        """Runs the tools of one response side by side; each call gets its one result."""
        try:
            async with asyncio.TaskGroup() as group:
                for call_id, call in calls.items():
                    group.create_task(self._call_tool(run, call_id, call), name=f"tool {call.name} {call_id}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _call_tool(self, run: Run, call_id: str, call: Call) -> None:
        try:
            output = await self._result(run, call_id, call)
        except ToolError as error:
            await run.tool_result(call_id, error=str(error))
        else:
            await run.tool_result(call_id, output=output)

    async def _result(self, run: Run, call_id: str, call: Call) -> JSON:
        tool = self._tools.get(call.name)
        if tool is None:
            raise ToolError(f"there is no tool named {call.name}")
        checked = tool.check(call.arguments)
        if tool.approval:
            answer = await run.ask(
                "approval",
                expires_ms=self._approval_expires_ms,
                call_id=call_id,
                name=call.name,
                input=parse_json(call.arguments.strip() or "{}"),
            )
            if answer.outcome != "answered":
                raise ToolError("declined: nobody approved the call in time")
            if not _approves(answer.value):
                raise ToolError("declined by a person")
        return await tool.call(run, checked)

    def _explained(self, error: openai.OpenAIError, run: Run) -> AgentError:
        explained = request_error(error)
        _log.warning(
            "model_request_failed",
            session=run.session_id,
            run=run.run_id,
            error=type(error).__name__,
            status=getattr(error, "status_code", None),
            code=explained.code,
            request=getattr(error, "request_id", None),
        )
        return explained


class _Body(Protocol):
    @property
    def headers(self) -> Mapping[str, str]: ...
    def aiter_raw(self) -> AsyncGenerator[bytes, None]: ...
    def aiter_bytes(self) -> AsyncGenerator[bytes, None]: ...


class _Response(Protocol):
    """The part of the package's response that is read here."""

    @property
    def http_response(self) -> _Body: ...


def _body(response: _Response) -> AsyncGenerator[bytes, None]:
    """The bytes of the response, by the shortest way: undecoded, unless the server compressed them all the
    same.
    """
    http = response.http_response
    plain = http.headers.get("content-encoding", "identity") == "identity"
    return http.aiter_raw() if plain else http.aiter_bytes()


class _Passing:
    """Passes what a reader read on to the run, and gives each call an id that the run has not used."""

    def __init__(self, run: Run, used: set[str]) -> None:
        self.ids: dict[Call, str] = {}
        self._run = run
        self._used = used

    async def on(self, deltas: Sequence[Delta]) -> None:
        """Passes `deltas` on, in order."""
        for delta in deltas:
            match delta:
                case TextDelta("text", text):
                    await self._run.text(text)
                case TextDelta(_, text):
                    await self._run.reasoning(text)
                case CallDelta(call, text, done):
                    await self._run.tool_call_delta(self._id(call), call.name, text, done=done)
                case Source(url, title):
                    await self._run.source(url, title)

    def _id(self, call: Call) -> str:
        known = self.ids.get(call)
        if known is not None:
            return known
        chosen, number = call.id, len(self._used)
        while chosen in self._used or not is_id(chosen):
            number += 1
            chosen = f"call_{number}"
        self._used.add(chosen)
        self.ids[call] = chosen
        return chosen


async def _read(body: AsyncGenerator[bytes, None], reader: Reader, passing: _Passing) -> None:
    """Reads one response to its end. Raises AgentError where it is broken off, too large, or no response."""
    parser = SseParser()
    while True:
        try:
            chunk = await anext(body, None)
        except Exception:  # aiohttp's, httpx's or the loop's own: whatever it is, the network failed
            raise upstream_error("upstream_disconnected") from None
        if chunk is None:
            break
        over = False
        try:
            for event in parser.feed(chunk):
                if event.data.startswith(b"[DONE]"):
                    over = reader.finished = True
                    break
                reader.read(_parse(event.event, event.data))
        except EventTooLargeError:
            raise upstream_error("upstream_invalid") from None
        finally:
            await passing.on(reader.take())  # what came before an error was said, and is kept
        if over or reader.over:
            await _drain(body)
            break
    reader.end()
    await passing.on(reader.take())


async def _drain(body: AsyncGenerator[bytes, None]) -> None:
    """Reads the end of a body whose response is whole; only then can the connection serve another request."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in body:
                pass
    except Exception:
        _log.debug("model_connection_not_reusable", exc_info=True)


def _parse(name: bytes, payload: bytes) -> Mapping[str, Any]:
    """The event's object. What is named `error` becomes one that the readers know, whatever its form."""
    event: JsonValue
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            event = parse_json(payload)
        except ValueError:
            event = None
    if name == b"error":
        fault = (event.get("error") or event) if isinstance(event, dict) else event
        return {"type": "error", "error": fault or "unnamed"}
    if not isinstance(event, dict):
        raise upstream_error("upstream_invalid")
    return event


def _call_ids(messages: Sequence[Message], run_id: str) -> set[str]:
    """The ids of all calls that the run has made so far."""
    return {
        str(part.get("callId"))
        for message in messages
        if message.get("runId") == run_id and message["role"] == "assistant"
        for part in message["parts"]
        if part.get("kind") == "tool_call"
    }


def _approves(value: JSON) -> bool:
    return value is True or (isinstance(value, dict) and value.get("approved") is True)


def _add(total: dict[str, JSON], usage: Mapping[str, JSON]) -> None:
    for name, count in usage.items():
        before = total.get(name, 0)
        if isinstance(before, int) and isinstance(count, int):
            total[name] = before + count
