"""Messages that grow: by the chunks of a run that goes on, or out of the entries that a page cut them into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from holdfast.protocol.events import Kept, Message, Part
from holdfast.protocol.values import JSON

TEXT_KINDS: Final = frozenset({"text", "reasoning"})
"""The kinds of parts that grow by nothing but text, and that a stop may cut."""
_ENVELOPE = frozenset({"type", "seq", "at", "command", "from", "runId", "part", "done", "delta"})
_BLOCK_DELTAS = 256
_BLOCK_LENGTH = 64 * 1024
"""Code points. Text is held in blocks of about this size, and at most so many deltas stand behind the last one."""
TEXT_FIELDS: Final[Mapping[str, str]] = {"text": "text", "reasoning": "text", "tool_call": "arguments"}
"""Where the deltas of a kind accumulate in the folded part; an unknown kind keeps them under `delta`."""


class OpenPart:
    """One part of a message that may still grow. Appending a delta costs its length, not the part's.

    Deltas are joined in blocks as they come, so that a part takes the memory of its text, however small the pieces
    were that it came in.
    """

    __slots__ = ("_blocks", "_deltas", "_joined", "done", "fields", "kind", "length")

    def __init__(self, kind: str, fields: dict[str, Any], text: str | None = None, *, done: bool = False) -> None:
        self.kind = kind
        self.fields = fields
        self._blocks: list[str] | None = None if text is None else _cut(text)
        """The text but for its end; None where there is none, which is not the same as an empty one."""
        self._deltas: list[str] = []
        """The end of the text: too little for a block yet."""
        self.length = 0 if text is None else len(text)
        """Of the text, in Unicode code points."""
        self._joined = self.length
        """Of the blocks."""
        self.done = done

    @classmethod
    def of(cls, part: Part, *, done: bool = False) -> OpenPart:
        """The open form of a folded part, as a snapshot holds it."""
        fields = dict(part)
        kind = str(fields.pop("kind"))
        field = TEXT_FIELDS.get(kind, "delta")
        text = fields.get(field)
        if isinstance(text, str):
            del fields[field]
            return cls(kind, fields, text, done=done)
        return cls(kind, fields, done=done)

    @classmethod
    def of_blocks(cls, kind: str, fields: dict[str, Any], blocks: Iterable[str] | None, *, done: bool) -> OpenPart:
        """The part whose `blocks` these are."""
        part = cls(kind, fields, done=done)
        if blocks is not None:
            part._blocks = [*blocks]
            part.length = part._joined = sum(map(len, part._blocks))
        return part

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.blocks() or ())

    def blocks(self) -> Sequence[str] | None:
        """The text in pieces of bounded length, in order; None where there is no text. Not to be changed."""
        self._close_block()
        return self._blocks

    def _close_block(self) -> None:
        if not self._deltas or self._blocks is None:
            return
        end = "".join(self._deltas)
        self._deltas.clear()
        self._joined = self.length
        if self._blocks and len(self._blocks[-1]) + len(end) <= _BLOCK_LENGTH:
            self._blocks[-1] += end
        else:
            self._blocks.append(end)

    def add(self, delta: str) -> None:
        """Takes in text."""
        if self._blocks is None:
            self._blocks = []
        self._deltas.append(delta)
        self.length += len(delta)
        if len(self._deltas) >= _BLOCK_DELTAS or self.length - self._joined >= _BLOCK_LENGTH:
            self._close_block()

    def fold(self, chunk: Mapping[str, Any]) -> None:
        """Takes in a `run.chunk` of this part."""
        delta = chunk.get("delta")
        if isinstance(delta, str):
            self.add(delta)
        elif delta is not None:  # of a kind that this version does not know
            self.fields["delta"] = delta
        if self.kind not in TEXT_KINDS:
            for name, value in chunk.items():
                if name not in _ENVELOPE and name != "kind":
                    self.fields[name] = value
            if self.kind == "tool_call" and "input" in chunk:
                self._blocks = None  # the whole input replaces the argument text it was streamed as
                self._deltas.clear()
                self.length = self._joined = 0
        if chunk.get("done"):
            self.done = True

    def cut(self, length: int) -> OpenPart:
        """The part with the first `length` code points of text or reasoning; others happened, and stay whole."""
        if self.kind not in TEXT_KINDS or length >= self.length:
            return self
        return OpenPart(self.kind, self.fields, self.text[:length], done=self.done)

    def copy(self) -> OpenPart:
        """A part that goes on without this one; the text so far is shared."""
        part = OpenPart(self.kind, self.fields.copy(), done=self.done)
        part._blocks = None if self._blocks is None else self._blocks.copy()
        part._deltas, part._joined, part.length = self._deltas.copy(), self._joined, self.length
        return part

    def view(self) -> Part:
        """The part as a message carries it."""
        part: Part = {"kind": self.kind, **self.fields}
        if self._blocks is not None or self.kind in TEXT_KINDS:
            part[TEXT_FIELDS.get(self.kind, "delta")] = self.text
        return part


def _cut(text: str) -> list[str]:
    return [text[start : start + _BLOCK_LENGTH] for start in range(0, len(text), _BLOCK_LENGTH)]


class OpenMessage:
    """An assistant message while its run goes on. `fields` are those of the message but `parts`.

    A part that is done does not change any more: what cuts it puts another one in its place.
    """

    __slots__ = ("fields", "parts")

    def __init__(self, fields: dict[str, Any], parts: list[OpenPart]) -> None:
        self.fields = fields
        self.parts = parts

    def chunk(self, event: Mapping[str, Any]) -> OpenPart | None:
        """Folds a `run.chunk`; the part it went to, None where its number leaves a gap."""
        number: int = event["part"]
        if number == len(self.parts):
            self.parts.append(OpenPart(event["kind"], {}))
        elif number > len(self.parts):
            return None
        part = self.parts[number]
        part.fold(event)
        return part

    def steer(self, steer: Mapping[str, Any], kept: Sequence[Kept] | None) -> None:
        """Puts an applied steer behind the parts so far, which are cut by `kept` but all stay."""
        self.close_parts()
        for entry in kept or ():
            if entry["part"] < len(self.parts):
                self.parts[entry["part"]] = self.parts[entry["part"]].cut(entry["length"])
        fields = {name: steer[name] for name in ("steerId", "parts", "by", "device")}
        self.parts.append(OpenPart("steer", fields, done=True))

    def close_parts(self) -> None:
        """Nothing goes on in the parts so far."""
        for part in self.parts:
            part.done = True

    def keep(self, kept: Sequence[Kept]) -> None:
        """Cuts an ended message: text and reasoning parts to their length in `kept`, out where not listed."""
        lengths = {entry["part"]: entry["length"] for entry in kept}
        left: list[OpenPart] = []
        for number, part in enumerate(self.parts):
            if part.kind in TEXT_KINDS:
                if number not in lengths:
                    continue
                part = part.cut(lengths[number])
            left.append(part)
        self.parts = left

    def copy(self) -> OpenMessage:
        """A message that goes on without this one; what is done of it is shared."""
        return OpenMessage(self.fields.copy(), [part if part.done else part.copy() for part in self.parts])

    def view(self) -> Message:
        """The message as a snapshot carries it, a copy that later chunks do not change."""
        return cast("Message", {**self.fields, "parts": [part.view() for part in self.parts]})


def reopen(message: Message) -> OpenMessage:
    """The open form of an assistant message whose run goes on."""
    fields: dict[str, Any] = dict(message)
    parts: list[Part] = fields.pop("parts")
    return OpenMessage(fields, [OpenPart.of(part) for part in parts])


def join_continued(messages: list[Message], entries: Iterable[Message]) -> list[Message]:
    """`messages` with `entries` behind them, those marked `continued` grown into the message they go on with."""
    for entry in entries:
        if not entry.get("continued") or not messages:
            messages.append(entry)
            continue
        whole = messages[-1].copy()
        whole["parts"] = _join_parts(whole["parts"], entry["parts"])
        messages[-1] = whole
    return messages


def _join_parts(parts: list[Part], more: list[Part]) -> list[Part]:
    if not parts or not more or not more[0].get("continued"):
        return [*parts, *more]
    last, first = dict(parts[-1]), more[0]
    field = TEXT_FIELDS.get(str(last["kind"]), "delta")
    last[field] = _text(last.get(field)) + _text(first.get(field))
    return [*parts[:-1], last, *more[1:]]


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else ""
