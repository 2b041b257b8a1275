"""Cutting transcript messages into entries of bounded size, and merging events for a reader that fell behind. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from holdfast.protocol.codec import JSON_CODEC
from holdfast.protocol.events import Message, Part
from holdfast.protocol.messages import TEXT_FIELDS, OpenMessage, OpenPart
from holdfast.protocol.values import MESSAGE_BYTES

ENTRIES_BYTES: Final = MESSAGE_BYTES // 4
"""Of JSON in one server message, unless one entry alone has more: at most an event with its envelope, 256 KiB.

Nothing takes more than 9/4 of its JSON in msgpack, which needs nine bytes for `0.5,`: so all of them fit, in either.
"""
_SLICE: Final = 40_000
"""Code points of text in one piece of a part, or in one merged event: under 256 KiB in any encoding."""
_MERGED_FIELDS: Final = frozenset({"type", "seq", "at", "from", "runId", "part", "kind", "delta", "callId", "name"})
_OWN_FIELDS: Final = frozenset({"seq", "at", "delta"})


def entries(message: Message | OpenMessage) -> Iterator[tuple[Message, int]]:
    """The message in entries of bounded size, and about how many bytes of JSON each has. All but the first `continue`.

    One that is small enough is its only entry. Of one whose run goes on nothing may be added meanwhile.
    """
    if isinstance(message, OpenMessage):
        fields: dict[str, Any] = message.fields
        parts: Iterable[Part | OpenPart] = message.parts
    else:
        fields, parts = {**message}, message["parts"]
    own = len(JSON_CODEC.encode({**fields, "parts": [], "continued": True}))
    pieces: list[Part] = []
    size, first = own, True
    for piece in _pieces(parts):
        piece_size = len(JSON_CODEC.encode(piece)) + 1  # and a comma
        if pieces and size + piece_size > ENTRIES_BYTES:
            yield _entry(fields, pieces, first=first), size
            pieces, size, first = [], own, False
        pieces.append(piece)
        size += piece_size
    yield _entry(fields, pieces, first=first), size


def whole(entries: Iterable[Message]) -> Message:
    """The message that was cut into these entries."""
    fields: dict[str, Any] | None = None
    pieces: list[Part] = []
    for entry in entries:
        fields = {**entry} if fields is None else fields
        pieces.extend(entry["parts"])
    assert fields is not None, "a message has an entry at least"
    return _entry(fields, pieces, first=True)


def _entry(fields: Mapping[str, Any], pieces: Sequence[Part], *, first: bool) -> Message:
    entry = cast("Message", {**fields, "parts": _rejoined(pieces)})
    if not first:
        entry["continued"] = True
    return entry


def _pieces(parts: Iterable[Part | OpenPart]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, OpenPart):
            blocks = part.blocks()
            if blocks is None or part.length <= _SLICE or part.kind not in TEXT_FIELDS:
                yield part.view()
                continue
            # Without joining the text, which may be as long as a message.
            empty = OpenPart.of_blocks(part.kind, part.fields, [], done=part.done).view()
            yield from _cut(empty, (block[at : at + _SLICE] for block in blocks for at in range(0, len(block), _SLICE)))
            continue
        text = part.get(TEXT_FIELDS.get(str(part["kind"]), ""))
        if not isinstance(text, str) or len(text) <= _SLICE:
            yield part
        else:
            yield from _cut(part, (text[at : at + _SLICE] for at in range(0, len(text), _SLICE)))


def _cut(part: Part, texts: Iterable[str]) -> Iterator[Part]:
    field = TEXT_FIELDS[str(part["kind"])]
    for number, text in enumerate(texts):
        piece: Part = {**part, field: text}
        if number:
            piece["continued"] = True
        yield piece


def _rejoined(pieces: Sequence[Part]) -> list[Part]:
    """Pieces of one part that came into the same entry, as one: only an entry's first part may be continued."""
    parts: list[Part] = []
    texts: list[list[str]] = []
    for piece in pieces:
        if parts and piece.get("continued"):
            texts[-1].append(str(piece[TEXT_FIELDS[str(piece["kind"])]]))
        else:
            parts.append(piece)
            texts.append([])
    for number, more in enumerate(texts):
        if more:
            part = parts[number]
            field = TEXT_FIELDS[str(part["kind"])]
            parts[number] = {**part, field: "".join([str(part[field]), *more])}
    return parts


def merged(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The same events with adjacent deltas of one part made into one, which says `from` where it begins."""
    held: dict[str, Any] | None = None
    deltas: list[str] = []
    length = 0
    for event in events:
        if held is not None and _continues(held, event) and length + len(event["delta"]) <= _SLICE:
            held["seq"], held["at"] = event["seq"], event["at"]
            deltas.append(event["delta"])
            length += len(event["delta"])
            continue
        if held is not None:
            yield _joined(held, deltas)
            held = None
        if event["type"] == "run.chunk" and isinstance(event.get("delta"), str) and event.keys() <= _MERGED_FIELDS:
            held, deltas = {**event, "from": event.get("from", event["seq"])}, [event["delta"]]
            length = len(event["delta"])
        else:
            yield event
    if held is not None:
        yield _joined(held, deltas)


def _continues(held: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    # Equal in all that a reader would fold: of two names of one call the later one counts.
    return (
        event["seq"] == held["seq"] + 1
        and isinstance(event.get("delta"), str)
        and set(held) == {*event, "from"}
        and all(event[name] == held[name] for name in event if name not in _OWN_FIELDS)
    )


def _joined(held: dict[str, Any], deltas: list[str]) -> Mapping[str, Any]:
    if len(deltas) == 1:
        del held["from"]
        return held
    held["delta"] = "".join(deltas)
    return held
