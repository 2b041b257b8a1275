"""What a scripted response consists of, and the event streams of both APIs that say it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson


@dataclass(frozen=True)
class Text:
    """One chunk of text."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """One chunk of reasoning."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """A whole tool call, its argument text in `pieces` chunks."""

    name: str
    arguments: str
    id: str = "call_0"
    pieces: int = 2


@dataclass(frozen=True)
class Hold:
    """Nothing is sent until `Endpoint.release` is called."""


@dataclass(frozen=True)
class Fail:
    """An error in the middle of the stream, which ends there."""

    message: str
    code: str | None = None
    type: str = "server_error"


@dataclass(frozen=True)
class Drop:
    """The connection is cut."""


@dataclass(frozen=True)
class End:
    """The stream ends properly, but the response is not marked as whole."""


@dataclass(frozen=True)
class Raw:
    """Bytes of the event stream, as they are."""

    bytes: bytes


Step: TypeAlias = Text | Reasoning | ToolCall | Hold | Fail | Drop | End | Raw


class ChatWire:
    """The events of a chat completions stream."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._model = body.get("model")
        options: Mapping[str, Any] = body.get("stream_options") or {}
        self._usage = bool(options.get("include_usage"))
        self._calls = itertools.count()
        self._reason = "stop"

    def begin(self) -> Iterable[bytes]:
        """What comes before the first token."""
        yield self._chunk({"role": "assistant", "content": ""})

    def chunks(self, step: Step) -> Iterable[bytes]:
        """The chunks of one step, each billed."""
        match step:
            case Text(text):
                yield self._chunk({"content": text})
            case Reasoning(text):
                yield self._chunk({"reasoning_content": text})
            case ToolCall():
                self._reason = "tool_calls"
                index = next(self._calls)
                start = {"id": step.id, "type": "function", "function": {"name": step.name, "arguments": ""}}
                yield self._chunk({"tool_calls": [{"index": index, **start}]})
                for piece in _pieces(step.arguments, step.pieces):
                    yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            case Fail():
                yield _event({"error": {"message": step.message, "type": step.type, "code": step.code}})
            case Raw(raw):
                yield raw
            case Hold() | Drop() | End():
                pass

    def end(self, billed: int) -> Iterable[bytes]:
        """What marks the response as whole, with its usage."""
        yield self._chunk({}, self._reason)
        if self._usage:
            counts = {"prompt_tokens": 7, "completion_tokens": billed, "total_tokens": 7 + billed}
            yield _event({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": counts})
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        return _event(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": self._model,
                "system_fingerprint": "fp_1",
                "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
            }
        )


class ResponsesWire:
    """The events of a responses stream."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._model = body.get("model")
        self._sequence = itertools.count()
        self._outputs = itertools.count(1)  # the message is output 0

    def begin(self) -> Iterable[bytes]:
        """What comes before the first token."""
        yield self._event("response.created", response=self._response("in_progress"))

    def chunks(self, step: Step) -> Iterable[bytes]:
        """The chunks of one step, each billed."""
        match step:
            case Text(text):
                yield self._event(
                    "response.output_text.delta",
                    item_id="msg_1",
                    output_index=0,
                    content_index=0,
                    delta=text,
                    logprobs=[],
                )
            case Reasoning(text):
                yield self._event(
                    "response.reasoning_summary_text.delta",
                    item_id="rs_1",
                    output_index=0,
                    summary_index=0,
                    delta=text,
                )
            case ToolCall():
                yield from self._call(step, next(self._outputs))
            case Fail():
                yield self._event("error", message=step.message, code=step.code or step.type, param=None)
            case Raw(raw):
                yield raw
            case Hold() | Drop() | End():
                pass

    def end(self, billed: int) -> Iterable[bytes]:
        """What marks the response as whole, with its usage."""
        counts = {
            "input_tokens": 7,
            "output_tokens": billed,
            "total_tokens": 7 + billed,
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        yield self._event("response.completed", response={**self._response("completed"), "usage": counts})

    def _call(self, call: ToolCall, index: int) -> Iterable[bytes]:
        item = {"type": "function_call", "id": f"fc_{index}", "call_id": call.id, "name": call.name}
        begun = {**item, "arguments": "", "status": "in_progress"}
        whole = {**item, "arguments": call.arguments, "status": "completed"}
        yield self._event("response.output_item.added", output_index=index, item=begun)
        for piece in _pieces(call.arguments, call.pieces):
            yield self._event(
                "response.function_call_arguments.delta", item_id=item["id"], output_index=index, delta=piece
            )
        yield self._event("response.output_item.done", output_index=index, item=whole)

    def _response(self, status: str) -> dict[str, Any]:
        return {"id": "resp_1", "object": "response", "model": self._model, "status": status, "output": []}

    def _event(self, type_: str, **fields: object) -> bytes:
        event = {"type": type_, "sequence_number": next(self._sequence), **fields}
        return b"event: %b\n%b" % (type_.encode(), _event(event))


def _event(payload: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(payload)


def _pieces(text: str, count: int) -> Iterable[str]:
    size = max(1, -(-len(text) // count))
    return (text[start : start + size] for start in range(0, len(text), size))
