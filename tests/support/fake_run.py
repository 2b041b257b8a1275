"""A Run without a server: it folds what the agent says into the transcript of the next request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from holdfast.protocol import JSON, Message, Part
from holdfast.protocol.messages import OpenMessage
from holdfast.server.agents.openai import OpenAIAgent

KEY = "sk-secret-0123456789"
"""The key of the tests' clients, to be looked for where it must not be."""


@dataclass
class FakeAnswer:
    """What a person answered."""

    outcome: Literal["answered", "expired"] = "answered"
    value: JSON = None
    by: str = "ana"
    device: str = "phone"


@dataclass
class FakeRun:
    """Holds a transcript that ends with a user's message, and its own assistant message so far."""

    history: list[Message]
    answers: list[FakeAnswer] = field(default_factory=list[FakeAnswer])
    session_id: str = "s"
    run_id: str = "r"
    asked: list[dict[str, JSON]] = field(default_factory=list[dict[str, JSON]])
    used: dict[str, JSON] = field(default_factory=dict[str, JSON])
    writes: int = 0
    waiting_steers: list[str] = field(default_factory=list[str])
    spoke: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with each text."""

    def __post_init__(self) -> None:
        fields = {"id": "r.a", "role": "assistant", "at": 0, "seq": 2, "after": "u", "runId": self.run_id}
        self.message = OpenMessage({**fields, "status": "streaming"}, [])
        self._calls: dict[str, int] = {}

    @property
    def messages(self) -> list[Message]:
        """The transcript, this run's own message last if it has begun."""
        return [*self.history, self.message.view()] if self.message.parts else list(self.history)

    @property
    def parts(self) -> list[Part]:
        """The parts of the message so far."""
        return self.message.view()["parts"]

    @property
    def said(self) -> str:
        """The text of the message so far."""
        return "".join(str(part["text"]) for part in self.parts if part["kind"] == "text")

    def steer(self, text: str) -> None:
        """Applies a steer."""
        parts: list[Part] = [{"kind": "text", "text": text}]
        self.message.steer({"steerId": "st", "parts": parts, "by": "ana", "device": "phone"}, None)

    async def steers(self) -> list[str]:
        """Applies the steers that wait."""
        taken, self.waiting_steers = self.waiting_steers, []
        for text in taken:
            self.steer(text)
        return taken

    async def text(self, delta: str) -> None:
        """More text."""
        self.writes += 1
        self._delta("text", delta)
        self.spoke.set()

    async def reasoning(self, delta: str) -> None:
        """More reasoning."""
        self._delta("reasoning", delta)

    async def tool_call_delta(self, call_id: str, name: str, delta: str, *, done: bool = False) -> None:
        """More of a call's argument text."""
        part = self._calls.setdefault(call_id, len(self.message.parts))
        assert part == len(self.message.parts) or not self.message.parts[part].done
        chunk: dict[str, Any] = {"part": part, "kind": "tool_call", "callId": call_id, "name": name}
        self.message.chunk({**chunk, "delta": delta, **({"done": True} if done else {})})

    async def tool_result(self, call_id: str, *, output: JSON = None, error: str | None = None) -> None:
        """A call's result."""
        result = {"output": output} if error is None else {"error": error}
        chunk = {"part": len(self.message.parts), "kind": "tool_result", "callId": call_id, **result}
        self.message.chunk(chunk)

    async def source(self, url: str, title: str | None = None) -> None:
        """A page cited."""
        self.message.chunk({"part": len(self.message.parts), "kind": "source", "url": url, "title": title})

    async def ask(self, kind: str, *, expires_ms: int | None = None, **fields: JSON) -> FakeAnswer:
        """Takes the next of `answers`."""
        self.asked.append({"kind": kind, **fields})
        return self.answers.pop(0)

    async def usage(self, usage: Mapping[str, JSON]) -> None:
        """Merges what was used."""
        self.used |= usage

    async def to_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Runs a synchronous function in a thread."""
        return await asyncio.to_thread(function, *args)

    def _delta(self, kind: str, delta: str) -> None:
        parts = self.message.parts
        goes_on = bool(parts) and parts[-1].kind == kind and not parts[-1].done
        self.message.chunk({"part": len(parts) - goes_on, "kind": kind, "delta": delta})


def user(text: str, message_id: str = "u") -> Message:
    """A user's message."""
    return cast(
        "Message",
        {
            "id": message_id,
            "role": "user",
            "parts": [{"kind": "text", "text": text}],
            "at": 0,
            "seq": 1,
            "after": None,
            "by": "ana",
            "device": "phone",
            "status": "complete",
        },
    )


def work_on(agent: OpenAIAgent, run: FakeRun) -> asyncio.Task[None]:
    """The agent at work."""

    async def work() -> None:
        await agent(cast("Any", run))

    return asyncio.create_task(work(), name="agent")


def asked() -> FakeRun:
    """A run that was asked something."""
    return FakeRun([user("hello")])
