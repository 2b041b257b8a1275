"""What the events of a model's stream mean: text, reasoning, tool calls, sources, usage, errors.

Two readers, one for each API, fed with the events of one response. Both are pure: parsed JSON goes in, deltas
come out, in order, adjacent text joined. They are lenient where compatible servers differ (fields that are
missing or null, calls without an id or an index, the whole call in one piece) and strict about one thing: an
response counts as whole only if the server said so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from holdfast.protocol.values import JSON
from holdfast.server.agents.openai.errors import stream_error, upstream_error
from holdfast.server.agents.prompt import to_json
from holdfast.server.errors import AgentError


@dataclass(slots=True)
class TextDelta:
    """More of the response, or of the reasoning before it."""

    kind: Literal["text", "reasoning"]
    text: str


@dataclass(slots=True)
class CallDelta:
    """More of a call's argument text; the first one of a call may be empty, the last one has `done`."""

    call: Call
    text: str
    done: bool = False


@dataclass(slots=True)
class Source:
    """A page that the response cites."""

    url: str
    title: str | None


Delta: TypeAlias = TextDelta | CallDelta | Source


@dataclass(slots=True, eq=False)
class Call:
    """A tool call of the response. `id` is the server's and may be empty or used before."""

    id: str
    name: str
    pieces: list[str] = field(default_factory=list[str])
    done: bool = False

    @property
    def arguments(self) -> str:
        """The argument text so far."""
        return "".join(self.pieces)


class _Reader:
    """What reading one response has in common."""

    def __init__(self) -> None:
        self.finished = False
        """The server said that the response is whole."""
        self.over = False
        """Nothing that matters follows. Chat completions send usage after `finished`, and `[DONE]` ends them."""
        self.usage: dict[str, JSON] | None = None
        """Tokens as the server counted them, in Holdfast's names; None until it said so."""
        self.calls: list[Call] = []
        """The tool calls of the response, in order."""
        self._deltas: list[Delta] = []

    def take(self) -> list[Delta]:
        """What was read since the last call."""
        deltas = self._deltas
        self._deltas = []
        return deltas

    def end(self) -> None:
        """The stream is over: closes the calls of a response that is whole. Raises AgentError for others."""
        if not self.finished:
            raise AgentError(
                "upstream_incomplete",
                "The model server ended its response in the middle. Send again to get a whole one.",
                retryable=True,
            )
        for call in self.calls:
            if not call.name:
                raise upstream_error("upstream_invalid")
            self._close(call)

    def _text(self, kind: Literal["text", "reasoning"], text: str) -> None:
        if self._deltas:
            last = self._deltas[-1]
            if isinstance(last, TextDelta) and last.kind == kind:
                last.text += text
                return
        self._deltas.append(TextDelta(kind, text))

    def _extend(self, call: Call, text: str) -> None:
        call.pieces.append(text)
        if call.name:  # until its name is known, a call is not announced
            self._deltas.append(CallDelta(call, text))

    def _close(self, call: Call) -> None:
        if not call.done:
            call.done = True
            self._deltas.append(CallDelta(call, "", done=True))

    def _cite(self, citation: object) -> None:
        fields = _object(citation)
        url, title = _string(fields.get("url")), _string(fields.get("title"))
        if url:
            self._deltas.append(Source(url, title or None))


class ChatReader(_Reader):
    """Reads the chunks of a chat completions stream."""

    def __init__(self) -> None:
        super().__init__()
        self._by_index: dict[int, Call] = {}

    def read(self, event: Mapping[str, Any]) -> None:
        """Takes in one chunk. Raises AgentError where it is an error."""
        if event.get("error"):
            raise stream_error(event["error"])
        usage = _object(event.get("usage"))
        if usage:
            self.usage = _usage(usage, "prompt", "completion")
        choices = _list(event.get("choices"))
        if not choices:
            return
        choice = _object(choices[0])
        delta = choice.get("delta")
        if delta:
            self._delta(_object(delta))
        if choice.get("finish_reason"):
            self.finished = True

    def _delta(self, delta: Mapping[str, Any]) -> None:
        # The two names that compatible servers use for reasoning; some send both, with the same text.
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning and isinstance(reasoning, str):
            self._text("reasoning", reasoning)
        text = delta.get("content") or delta.get("refusal")
        if text and isinstance(text, str):
            self._text("text", text)
        calls = delta.get("tool_calls")
        if calls:
            for piece in _list(calls):
                self._piece(_object(piece))
        annotations = delta.get("annotations")
        if annotations:
            for annotation in _list(annotations):
                self._cite(_object(annotation).get("url_citation"))

    def _piece(self, piece: Mapping[str, Any]) -> None:
        fields = _object(piece.get("function"))
        call_id, name, arguments = (
            _string(piece.get("id")),
            _string(fields.get("name")),
            fields.get("arguments"),
        )
        index = piece.get("index")
        if not isinstance(index, int):  # then an id or, without one, a name begins a call
            starts = call_id not in ("", self.calls[-1].id if self.calls else "") or (name and not call_id)
            index = len(self.calls) if starts or not self.calls else len(self.calls) - 1
        call = self._by_index.get(index)
        # Some servers give all calls of a response the index 0: another id with a name is another call.
        if call is None or (name and call_id not in ("", call.id) and call.id):
            call = self._by_index[index] = Call(call_id, name)
            self.calls.append(call)
            if name:
                self._deltas.append(CallDelta(call, ""))
        elif name and not call.name:
            call.name = name
            self._deltas.append(CallDelta(call, call.arguments))
        if arguments:
            self._extend(call, arguments if isinstance(arguments, str) else to_json(arguments))


class ResponsesReader(_Reader):
    """Reads the events of a responses stream."""

    def __init__(self) -> None:
        super().__init__()
        self._by_item: dict[object, Call] = {}

    def read(self, event: Mapping[str, Any]) -> None:
        """Takes in one event; types that mean nothing here are passed over. Raises AgentError where it is an
        error.
        """
        match event.get("type"):
            case "response.output_text.delta" | "response.refusal.delta":
                self._text("text", _string(event.get("delta")))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                self._text("reasoning", _string(event.get("delta")))
            case "response.reasoning_summary_part.added":
                if event.get("summary_index"):
                    self._text("reasoning", "\n\n")
            case "response.output_item.added":
                self._item(event, done=False)
            case "response.function_call_arguments.delta":
                call = self._by_item.get(event.get("output_index"))
                if call is not None and (text := _string(event.get("delta"))):
                    self._extend(call, text)
            case "response.output_item.done":
                self._item(event, done=True)
            case "response.output_text.annotation.added":
                if _object(event.get("annotation")).get("type") == "url_citation":
                    self._cite(event["annotation"])
            case "response.completed" | "response.incomplete":
                # `incomplete` is a response cut by a limit of tokens: whole as far as the server will ever
                # send it.
                self._usage(event)
                self.finished = self.over = True
            case "response.failed":
                self._usage(event)
                raise stream_error(_object(event.get("response")).get("error"))
            case "error":
                raise stream_error(event.get("error") or event)
            case None if event.get("error"):
                raise stream_error(event["error"])
            case _:
                pass

    def _item(self, event: Mapping[str, Any], *, done: bool) -> None:
        item = _object(event.get("item"))
        if item.get("type") != "function_call":
            return
        key = event.get("output_index")
        call = self._by_item.get(key)
        if call is None:
            call = self._by_item[key] = Call(_string(item.get("call_id")), _string(item.get("name")))
            self.calls.append(call)
            self._deltas.append(CallDelta(call, ""))
        if done:
            if not call.pieces and (text := _string(item.get("arguments"))):
                self._extend(call, text)
            self._close(call)

    def _usage(self, event: Mapping[str, Any]) -> None:
        usage = _object(_object(event.get("response")).get("usage"))
        if usage:
            self.usage = _usage(usage, "input", "output")


Reader: TypeAlias = ChatReader | ResponsesReader


def _usage(usage: Mapping[str, Any], asked: str, said: str) -> dict[str, JSON]:
    """Holdfast's names for what both APIs count, each only where the server said it."""
    counts: dict[str, object] = {
        "inputTokens": usage.get(f"{asked}_tokens"),
        "outputTokens": usage.get(f"{said}_tokens"),
        "totalTokens": usage.get("total_tokens"),
    }
    cached = _object(usage.get(f"{asked}_tokens_details")).get("cached_tokens")
    reasoned = _object(usage.get(f"{said}_tokens_details")).get("reasoning_tokens")
    counts |= {"cachedInputTokens": cached, "reasoningTokens": reasoned}
    return {name: count for name, count in counts.items() if isinstance(count, int)}


def _object(value: object) -> Mapping[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[object]:
    return cast("list[object]", value) if isinstance(value, list) else ()


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
