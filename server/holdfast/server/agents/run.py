"""`Run`: what an agent holds while it works on a run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, NoReturn, ParamSpec, TypeVar, cast

import structlog

from holdfast.protocol.codec import JSON_CODEC
from holdfast.protocol.events import Message, Request, RequestKind
from holdfast.protocol.values import EVENT_BYTES, JSON, VALUE_DEPTH, clean, clean_text
from holdfast.server.errors import OutputTooLargeError
from holdfast.server.session.ports import Answer, InterruptScope, RunPort

_log = structlog.get_logger("holdfast.run")
_P = ParamSpec("_P")
_R = TypeVar("_R")
_CHUNK_BYTES = EVENT_BYTES - 2048
_REFUSAL_SECONDS: Final = 0.01
"""How long each refusal but the first takes."""
_REQUEST_BYTES = 64 * 1024
"""Of one request: all that a run may have open fit into one message of a snapshot."""
_CAMEL = {"call_id": "callId"}
_REQUEST_FIELDS: Mapping[RequestKind, frozenset[str]] = {
    "approval": frozenset({"callId", "name", "input"}),
    "input": frozenset({"prompt", "schema"}),
    "tool": frozenset({"callId", "name", "input", "device"}),
}
_REQUIRED_FIELDS: Mapping[RequestKind, frozenset[str]] = {
    "approval": frozenset({"callId", "name", "input"}),
    "input": frozenset({"prompt"}),
    "tool": frozenset({"callId", "name", "input"}),
}


@dataclass(frozen=True, slots=True)
class Steer:
    """A message for a run that is going on, as its agent takes it."""

    steer_id: str
    parts: list[dict[str, Any]]
    by: str
    device: str

    @property
    def text(self) -> str:
        """Its text parts, joined."""
        return "".join(str(part.get("text", "")) for part in self.parts if part.get("kind") == "text")


@dataclass(frozen=True, slots=True)
class _Returned(Generic[_R]):
    """What a function in a thread gave back."""

    value: _R


@dataclass(frozen=True, slots=True)
class _Raised:
    """What a function in a thread raised: a value, as a future takes no StopIteration."""

    error: BaseException


class Run:
    """A run, as its agent holds it.

    Output is handed over at once and reaches the log in order; the methods wait only while too much of it waits for
    the store. They raise AgentError `limit_reached` where a message becomes too long or has more than 2,048 parts. When
    the run is stopped, or a `now` steer interrupts this call, `asyncio.CancelledError` enters the agent where it waits,
    and every later method call raises it again: let it pass, and close what you opened in a `finally`. It is raised too
    in a task that goes on after the agent has returned.
    """

    def __init__(self, port: RunPort) -> None:
        self._port = port
        self.over = False
        """Whether this call of the agent has returned, or a `now` steer has ended it: the next has a run of its own."""
        self._refused = False

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._port.session_id

    @property
    def run_id(self) -> str:
        """The run's id, unique in its session."""
        return self._port.info.run_id

    @property
    def agent(self) -> str:
        """The name that the agent was asked for by."""
        return self._port.info.agent

    @property
    def by(self) -> str:
        """The principal who sent the message."""
        return self._port.info.by

    @property
    def device(self) -> str:
        """The device that it was sent from."""
        return self._port.info.device

    @property
    def attempt(self) -> int:
        """1, or more where a restartable agent goes on after its node has died."""
        return self._port.info.attempt

    @property
    def metadata(self) -> Mapping[str, JSON]:
        """What the sender gave with the message."""
        return self._port.info.metadata

    @property
    def messages(self) -> list[Message]:
        """The transcript as the next model call should see it: last this run's own message, if it has parts.

        Stopped runs are in it with what was kept, applied steers as parts of the message they went into.
        `holdfast.server.agents.prompt` has it in the forms of the usual APIs. Bounded by the server's
        `history_messages` and `history_bytes`.
        """
        return self._port.messages()

    @property
    def cancelled(self) -> bool:
        """Whether the run has been stopped. Readable from any thread."""
        return self._port.stopping

    async def text(self, delta: str) -> None:
        """Adds to the message's text. Raises TypeError for anything but a string."""
        if self._is_over:
            await self._refuse()
        waiting = self._port.put_text("text", _text(delta))
        if waiting is not None:
            await waiting

    async def reasoning(self, delta: str) -> None:
        """Adds to the message's reasoning."""
        if self._is_over:
            await self._refuse()
        waiting = self._port.put_text("reasoning", _text(delta))
        if waiting is not None:
            await waiting

    async def tool_call(self, name: str, input: JSON, *, call_id: str | None = None) -> str:
        """Adds a whole tool call and returns its id. It may complete one that was streamed as deltas."""
        chosen = call_id or self._port.next_id("call")
        await self._write("tool_call", {"callId": chosen, "name": name, "input": input, "done": True})
        return chosen

    async def tool_call_delta(self, call_id: str, name: str, delta: str, *, done: bool = False) -> None:
        """Adds argument text to a tool call that is being streamed; `done` closes it."""
        fields: dict[str, JSON] = {"callId": call_id, "name": name, "delta": _text(delta)}
        if done:
            fields["done"] = True
        await self._write("tool_call", fields)

    async def tool_result(self, call_id: str, *, output: JSON = None, error: str | None = None) -> None:
        """Adds what a tool gave back: its output, or the error that its caller is told."""
        fields: dict[str, JSON] = {"callId": call_id, "done": True}
        fields |= {"output": output} if error is None else {"error": error}
        await self._write("tool_result", fields)

    async def data(self, name: str, value: JSON) -> None:
        """Adds a value for the application's own use."""
        await self._write("data", {"name": name, "value": value, "done": True})

    async def source(self, url: str, title: str | None = None) -> None:
        """Adds a source that the message draws on."""
        fields: dict[str, JSON] = {"url": url, "done": True}
        fields |= {} if title is None else {"title": title}
        await self._write("source", fields)

    async def file(self, url: str, *, title: str | None = None, media_type: str | None = None) -> None:
        """Adds a file that the agent made."""
        fields: dict[str, JSON] = {"url": url, "done": True}
        fields |= {} if title is None else {"title": title}
        fields |= {} if media_type is None else {"mediaType": media_type}
        await self._write("file", fields)

    async def ask(self, kind: RequestKind, *, expires_ms: int | None = None, **fields: JSON) -> Answer:
        """Asks a person or a client, and waits for what becomes of it; the run is `waiting` meanwhile.

        `approval` and `tool` take `call_id`, `name` and `input` (`tool` also `device`), `input` takes `prompt` and
        `schema`. After `expires_ms`, if given, nobody may answer any more. Cancelled, it takes the request back. Any
        device of the session may answer.
        """
        if self._is_over:
            await self._refuse()
        named = {
            _CAMEL.get(name, name): value for name, value in fields.items() if value is not None or name == "input"
        }
        unknown, missing = named.keys() - _REQUEST_FIELDS[kind], _REQUIRED_FIELDS[kind] - named.keys()
        if unknown or missing:
            raise TypeError(f"ask({kind!r}): unknown fields {sorted(unknown)}, missing fields {sorted(missing)}")
        request: dict[str, JSON] = {"id": self._port.next_id("q"), "kind": kind, **_checked(named, _REQUEST_BYTES)}
        return await self._port.request(cast("Request", request), expires_ms)

    async def steers(self) -> list[Steer]:
        """Takes all steers that wait, in order: they are in the log as applied, and in `messages`, when this returns.

        Agents registered with `takes_steers` get them only so. All others are called again for a steer; such an agent
        makes this call a boundary, at which the `step` ones are applied without that. Cancelled, it loses nothing: the
        next one returns what was applied.
        """
        if self._is_over:
            await self._refuse()
        return [
            Steer(item["steerId"], item["parts"], item["by"], item["device"]) for item in await self._port.take_steers()
        ]

    @asynccontextmanager
    async def interruptible(self) -> AsyncGenerator[InterruptScope]:
        """A block that a `now` steer cuts short, for agents registered with `takes_steers`.

            async with run.interruptible() as scope:
                async for delta in model(...): await run.text(delta)
            steers = await run.steers()

        The block ends at its await; `scope.interrupted` tells. A steer that waits already interrupts at the first
        await. Stopping the run is not an interruption: it goes on out of the block.
        """
        if self._is_over:
            await self._refuse()
        task = asyncio.current_task()
        assert task is not None, "an agent runs in a task"
        scope = InterruptScope(task)
        self._port.scope(scope)
        if self._port.steers_pending:
            scope.interrupt()
        try:
            yield scope
            if scope.interrupted:
                await asyncio.sleep(0)  # a body that never waited has its cancellation still to come
        except asyncio.CancelledError:
            if not scope.interrupted or self._port.stopping or task.uncancel():
                raise
        else:
            if scope.interrupted:  # the body swallowed the cancellation
                task.uncancel()
        finally:
            self._port.scope(None)

    async def usage(self, usage: Mapping[str, JSON]) -> None:
        """Records what the run has used; later values replace earlier ones of the same name.

        It is part of the run's end, or, where the run was stopped before, of `run.settled`. Raises OutputTooLargeError
        where all of it together is more than 16 KiB.
        """
        self._port.add_usage(cast("dict[str, JSON]", clean(dict(usage), max_depth=VALUE_DEPTH)))

    async def to_thread(self, function: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Calls a synchronous function in a thread, and nobody waits for it but this run.

        A thread cannot be stopped: cancelled, this waits for the function to return before it lets the cancellation
        pass, so that a run says that it has stopped only when it has. `run.cancelled` tells the function. Raises what
        the function raises, but a RuntimeError from it where that would mean something to a coroutine or to the event
        loop: StopIteration, and what is no Exception.
        """
        if self._is_over:
            await self._refuse()
        loop = asyncio.get_running_loop()
        returned: asyncio.Future[_Returned[_R] | _Raised] = loop.create_future()

        def work() -> None:
            outcome: _Returned[_R] | _Raised
            try:
                outcome = _Returned(function(*args, **kwargs))
            except BaseException as error:
                outcome = _Raised(error)
            if not loop.is_closed():
                loop.call_soon_threadsafe(returned.set_result, outcome)

        threading.Thread(target=work, name=f"run {self.run_id}", daemon=True).start()
        try:
            outcome = await asyncio.shield(returned)
        except asyncio.CancelledError:
            await self._until_returned(returned)
            raise
        if isinstance(outcome, _Returned):
            return outcome.value
        if isinstance(outcome.error, Exception) and not isinstance(outcome.error, StopIteration):
            raise outcome.error
        raise RuntimeError(f"the function raised {type(outcome.error).__name__}") from outcome.error

    async def _until_returned(self, returned: asyncio.Future[Any]) -> None:
        """A thread cannot be stopped: a further cancellation ends the wait only when nobody waits for the run."""
        while not returned.done() and not self._port.given_up:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({returned})
        if not returned.done():
            _log.warning("a thread of an agent goes on", session=self.session_id, run=self.run_id)

    async def _write(self, kind: str, fields: dict[str, JSON]) -> None:
        if self._is_over:
            await self._refuse()
        for name in ("callId", "name"):
            if name in fields and not isinstance(fields[name], str):
                raise TypeError(f"{name} is a string")
        await self._port.write(kind, _checked(fields))

    @property
    def _is_over(self) -> bool:
        """Whether the run was stopped, or this call of the agent interrupted or left behind."""
        return self.over or self._port.stopping

    async def _refuse(self) -> NoReturn:
        """Tells whoever goes on all the same again.

        Everybody else has a turn before: one who does not listen, and asks on and on, would hold the event loop.
        """
        await asyncio.sleep(_REFUSAL_SECONDS if self._refused else 0)
        self._refused = True
        raise asyncio.CancelledError


async def say_all(run: Run, port: RunPort, deltas: AsyncIterator[str]) -> None:
    """Adds all that a generator yields, as `run.text` does, and closes it however this ends.

    Nearly all output comes this way: so no coroutine is made for a delta that nobody has to wait for.
    """
    async with aclosing(cast("Any", deltas)):
        async for delta in deltas:
            waiting = run.text(delta) if run.over or port.stopping else port.put_text("text", _text(delta))
            if waiting is not None:
                await waiting


def _text(delta: object) -> str:
    if not isinstance(delta, str):
        raise TypeError(f"text is a string, not {type(delta).__name__}")
    return clean_text(delta)


def _checked(fields: Mapping[str, JSON], limit: int = _CHUNK_BYTES) -> dict[str, JSON]:
    """The fields as clean values that fit into one event: what cannot be encoded fails here, and only here."""
    cleaned = cast("dict[str, JSON]", clean(dict(fields), max_depth=VALUE_DEPTH + 1))
    if len(JSON_CODEC.encode(cleaned)) > limit:
        raise OutputTooLargeError(f"this piece of output holds at most {limit} bytes")
    return cleaned
