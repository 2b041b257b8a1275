"""The transcript as the next model call sees it.

Model APIs refuse a history that is not closed: a tool call without its result, an empty message, a result
nobody asked for. A transcript is full of such things, because runs are stopped in the middle. The two
functions here turn any transcript into a history that is accepted, and keep what the people in the session
saw:

- the partial message of a run that was stopped, failed, or still streams beside this one, stays in;
- a steer stands where it was applied: the message so far, the steer as a user's message, the message that
  followed;
- a tool call without a result, also one cut within its argument text, is closed with an `interrupted` result;
- results follow their calls; a result without a call, reasoning, and parts that models do not read are left
  out.

The same transcript always gives the same history, so that a provider's prompt cache keeps working.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import orjson
from pydantic import JsonValue

from holdfast.protocol.events import Message, Part
from holdfast.protocol.messages import join_continued

__all__ = ["Item", "chat_completions", "responses_input"]

Item: TypeAlias = dict[str, JsonValue]
"""One message or item of a request to a model."""

INTERRUPTED = "interrupted: the call was stopped before it gave a result"
"""What the model is told about a tool call that has no result."""

_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")  # the narrowest rule among the compatible servers
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_MAX_NAME_LENGTH = 64
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


@dataclass(slots=True)
class ToolCall:
    """One tool call of an assistant, closed: `output` is its result, or INTERRUPTED. `arguments` is a JSON
    object.
    """

    id: str
    name: str
    arguments: str
    output: str = INTERRUPTED


@dataclass(slots=True)
class AssistantTurn:
    """What a model said in one go: text, then calls made together, before any of their results."""

    text: list[str] = field(default_factory=list[str])
    calls: list[ToolCall] = field(default_factory=list[ToolCall])


@dataclass(slots=True)
class UserTurn:
    """What a person said: text and file parts, at least one of them not empty."""

    parts: list[Part]


Turn: TypeAlias = AssistantTurn | UserTurn


def chat_completions(messages: Sequence[Message]) -> list[Item]:
    """`messages` as the `messages` of a chat completions request, without a system message."""
    history: list[Item] = []
    for turn in turns(messages):
        if isinstance(turn, UserTurn):
            history.append({"role": "user", "content": _chat_content(turn.parts)})
            continue
        item: Item = {"role": "assistant", "content": "".join(turn.text) or None}
        if turn.calls:
            item["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in turn.calls
            ]
        history.append(item)
        history.extend({"role": "tool", "tool_call_id": call.id, "content": call.output} for call in turn.calls)
    return history


def responses_input(messages: Sequence[Message]) -> list[Item]:
    """`messages` as the `input` of a responses request."""
    history: list[Item] = []
    for turn in turns(messages):
        if isinstance(turn, UserTurn):
            history.append({"role": "user", "content": _responses_content(turn.parts)})
            continue
        if turn.text:
            history.append({"role": "assistant", "content": "".join(turn.text)})
        for call in turn.calls:
            history.append(
                {
                    "type": "function_call",
                    "call_id": call.id,
                    "name": call.name,
                    "arguments": call.arguments,
                }
            )
        for call in turn.calls:
            history.append({"type": "function_call_output", "call_id": call.id, "output": call.output})
    return history


def turns(messages: Sequence[Message]) -> list[Turn]:
    """`messages` as closed turns, none of them empty, every call with an id of its own."""
    call_ids = _CallIds()
    result: list[Turn] = []
    for message in join_continued([], messages):
        if message["role"] == "user":
            said = _said(message["parts"])
            if said:
                result.append(UserTurn(said))
        else:
            result.extend(_answered(message["parts"], call_ids))
    return result


def _said(parts: Sequence[Part]) -> list[Part]:
    return [
        part
        for part in parts
        if (part.get("kind") == "text" and _text(part, "text").strip())
        or (part.get("kind") == "file" and _text(part, "url"))
    ]


def _answered(parts: Sequence[Part], call_ids: _CallIds) -> Iterator[Turn]:
    """The turns of one assistant message: split at steers, and where it goes on after its calls."""
    turn = AssistantTurn()
    open_calls: dict[str, list[ToolCall]] = {}  # by the transcript's id, in order; ids may repeat within a run
    finished: list[Turn] = []
    resolved = False  # whether a result of this turn's calls was seen: a further call is a new turn
    for part in parts:
        match part.get("kind"):
            case "text":
                if turn.calls:
                    finished.append(turn)
                    turn, resolved = AssistantTurn(), False
                turn.text.append(_text(part, "text"))
            case "tool_call":
                if resolved:
                    finished.append(turn)
                    turn, resolved = AssistantTurn(), False
                call = ToolCall(call_ids.unique(_text(part, "callId")), _name(part), _arguments(part))
                turn.calls.append(call)
                open_calls.setdefault(_text(part, "callId"), []).append(call)
            case "tool_result":
                waiting = open_calls.get(_text(part, "callId"))
                if waiting:
                    call = waiting.pop(0)
                    call.output = _output(part)
                    resolved = resolved or any(call is own for own in turn.calls)
            case "steer":
                finished.append(turn)
                turn, resolved = AssistantTurn(), False
                steer = part.get("parts")
                said = _said([item for item in steer if isinstance(item, dict)]) if isinstance(steer, list) else []
                if said:
                    finished.append(UserTurn(said))
            case _:
                pass  # reasoning, data, source, file and kinds of later versions: not for a model
    finished.append(turn)
    for one in finished:
        if isinstance(one, AssistantTurn):
            if not "".join(one.text).strip():
                one.text = []
            if not one.text and not one.calls:
                continue
        yield one


class _CallIds:
    """Gives each call of a history an id that every server accepts and no other call of it has.

    Compatible servers number their calls anew in each response, and the transcript allows longer ids than they
    do.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()

    def unique(self, call_id: str) -> str:
        number = len(self._used)
        chosen = call_id if _CALL_ID.fullmatch(call_id) else f"call_{number}"
        while chosen in self._used:
            chosen = f"call_{number}"
            number += 1
        self._used.add(chosen)
        return chosen


def _text(part: Mapping[str, JsonValue], key: str) -> str:
    value = part.get(key)
    return value if isinstance(value, str) else ""


def _name(part: Part) -> str:
    return _NOT_IN_NAMES.sub("_", _text(part, "name"))[:_MAX_NAME_LENGTH] or "tool"


def _arguments(part: Part) -> str:
    """The call's input as the text of a JSON object: servers parse it, and refuse a history otherwise."""
    value: JsonValue
    if "input" in part:
        value = part["input"]
    else:
        text = _text(part, "arguments")
        try:
            value = parse_json(text) if text.strip() else {}
        except ValueError:
            value = {"unparsed": text}
    whole: dict[str, JsonValue] = value if isinstance(value, dict) else {"input": value}
    return to_json(whole)


def _output(part: Part) -> str:
    error = part.get("error")
    if error is not None:
        return f"error: {error if isinstance(error, str) else to_json(error)}"
    output = part.get("output")
    return output if isinstance(output, str) else to_json(output)


def parse_json(text: str | bytes) -> JsonValue:
    """The value of `text`; raises ValueError. Escaped halves of surrogate pairs are let through, as servers
    send them.
    """
    try:
        value: JsonValue = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = json.loads(text)
    return value


def to_json(value: JsonValue) -> str:
    """`value` as compact JSON text, keys in their own order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _chat_content(parts: Sequence[Part]) -> JsonValue:
    if all(part.get("kind") == "text" for part in parts):
        return "\n\n".join(_text(part, "text") for part in parts)
    return [_chat_part(part) for part in parts]


def _chat_part(part: Part) -> JsonValue:
    if part.get("kind") == "text":
        return {"type": "text", "text": _text(part, "text")}
    url, media_type = _text(part, "url"), _text(part, "mediaType").lower()
    if media_type.startswith("image/") and _can_be_fetched(url):
        return {"type": "image_url", "image_url": {"url": url}}
    if media_type == "application/pdf" and url.startswith("data:"):
        return {"type": "file", "file": {"filename": _text(part, "name") or "file.pdf", "file_data": url}}
    if media_type in _AUDIO_FORMATS and url.startswith("data:") and ";base64," in url:
        sound = url.partition(";base64,")[2]
        return {"type": "input_audio", "input_audio": {"data": sound, "format": _AUDIO_FORMATS[media_type]}}
    return {"type": "text", "text": _mention(part)}


def _responses_content(parts: Sequence[Part]) -> JsonValue:
    if all(part.get("kind") == "text" for part in parts):
        return "\n\n".join(_text(part, "text") for part in parts)
    return [_responses_part(part) for part in parts]


def _responses_part(part: Part) -> JsonValue:
    if part.get("kind") == "text":
        return {"type": "input_text", "text": _text(part, "text")}
    url, media_type = _text(part, "url"), _text(part, "mediaType").lower()
    if media_type.startswith("image/") and _can_be_fetched(url):
        return {"type": "input_image", "image_url": url, "detail": "auto"}
    if media_type == "application/pdf" and url.startswith("data:"):
        return {"type": "input_file", "filename": _text(part, "name") or "file.pdf", "file_data": url}
    if media_type == "application/pdf" and _can_be_fetched(url):
        return {"type": "input_file", "file_url": url}
    return {"type": "input_text", "text": _mention(part)}


def _can_be_fetched(url: str) -> bool:
    return url.startswith(("https://", "http://", "data:"))


def _mention(part: Part) -> str:
    """A file the API does not take, in words: the model can say that it cannot open it, or a tool can."""
    url = _text(part, "url")
    name, media_type = _text(part, "name") or "(unnamed)", _text(part, "mediaType") or "unknown type"
    where = "" if url.startswith("data:") else f" at {url}"
    return f"[attached file {name}, {media_type}{where}]"
