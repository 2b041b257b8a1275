"""Cutting snapshots and pages into server messages, and merging events for a reader that fell behind. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from holdfast.protocol.codec import JSON_CODEC
from holdfast.protocol.events import Message, Part, RunInfo
from holdfast.protocol.values import EVENT_BYTES, MESSAGE_BYTES

_ENTRIES_BYTES: Final = MESSAGE_BYTES // 3
"""Of JSON in one server message: the rest is for its other fields, and for what msgpack may need more."""
_SLICE: Final = 40_000
"""Code points of text in one continued entry: under 256 KiB in any encoding."""
_MERGED_LENGTH: Final = EVENT_BYTES // 8
_MERGED_FIELDS: Final = frozenset({"type", "seq", "at", "from", "runId", "part", "kind", "delta", "callId", "name"})
_OWN_FIELDS: Final = frozenset({"seq", "at", "delta"})
_TEXT_FIELDS: Final = {"text": "text", "reasoning": "text", "tool_call": "arguments"}


def snapshots(
    *, epoch: str, seq: int, at: int, reset: bool, messages: Sequence[Message], runs: Sequence[RunInfo], more: bool
) -> Iterator[dict[str, Any]]:
    """The `snapshot` messages of a session at one seq, each small enough to be sent."""
    head: dict[str, Any] = {"type": "snapshot", "epoch": epoch, "seq": seq, "at": at, "reset": reset}
    entries = [("messages", entry) for entry in _entries(messages)] + [("runs", entry) for entry in runs]
    groups = list(_grouped(entries)) or [[]]
    for index, group in enumerate(groups):
        yield {
            **head,
            "messages": [entry for kind, entry in group if kind == "messages"],
            "runs": [entry for kind, entry in group if kind == "runs"],
            "more": more,
            "last": index == len(groups) - 1,
        }


def pages(command_id: str, messages: Sequence[Message], *, more: bool) -> Iterator[dict[str, Any]]:
    """The `page` messages that answer `history`."""
    groups = list(_grouped(_entries(messages))) or [[]]
    for index, group in enumerate(groups):
        yield {"type": "page", "id": command_id, "messages": group, "more": more, "last": index == len(groups) - 1}


def _grouped(entries: Iterable[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    size = 0
    for entry in entries:
        entry_size = len(JSON_CODEC.encode(entry))
        if group and size + entry_size > _ENTRIES_BYTES:
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry_size
    if group:
        yield group


def _entries(messages: Iterable[Message]) -> Iterator[Message]:
    """The messages, those that are too large for one server message in several entries of the same id."""
    for message in messages:
        if len(JSON_CODEC.encode(message)) <= _ENTRIES_BYTES:
            yield message
            continue
        for index, parts in enumerate(_grouped(_pieces(message["parts"]))):
            entry = cast("Message", {**message, "parts": _rejoined(parts)})
            if index:
                entry["continued"] = True
            yield entry


def _pieces(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        field = _TEXT_FIELDS.get(str(part["kind"]))
        text = part.get(field) if field else None
        if field is None or not isinstance(text, str) or len(text) <= _SLICE:
            yield part
            continue
        for start in range(0, len(text), _SLICE):
            piece: Part = {**part, field: text[start : start + _SLICE]}
            if start:
                piece["continued"] = True
            yield piece


def _rejoined(pieces: Sequence[Part]) -> list[Part]:
    """Pieces of one part that came into the same entry, as one: only an entry's first part may be continued."""
    parts: list[Part] = []
    for piece in pieces:
        if parts and piece.get("continued"):
            field = _TEXT_FIELDS[str(piece["kind"])]
            parts[-1] = {**parts[-1], field: f"{parts[-1][field]}{piece[field]}"}
        else:
            parts.append(piece)
    return parts


def merged(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The same events with adjacent deltas of one part made into one, which says `from` where it begins."""
    held: dict[str, Any] | None = None
    deltas: list[str] = []
    length = 0
    for event in events:
        if held is not None and length < _MERGED_LENGTH and _continues(held, event):
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
