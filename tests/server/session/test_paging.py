"""Messages cut into entries, and events merged for slow readers."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC, Transcript
from holdfast.protocol.events import Event, Message, Part
from holdfast.protocol.messages import OpenMessage, OpenPart
from holdfast.protocol.values import EVENT_BYTES, JSON, MESSAGE_BYTES
from holdfast.server.session.paging import entries, merged, whole

_SIZES = st.sampled_from([0, 10, 39_999, 40_000, 40_001, 90_000, 700_000])


def _part(number: int, kind: str, size: int) -> Part:
    match kind:
        case "text" | "reasoning":
            return {"kind": kind, "text": "é" * size}
        case "tool_call":
            return {"kind": kind, "callId": f"c{number}", "name": "tool", "arguments": "x" * size}
        case _:
            return {"kind": "data", "name": "n", "value": "v" * min(size, 200_000)}


_PARTS = st.lists(st.tuples(st.sampled_from(["text", "reasoning", "tool_call", "data"]), _SIZES), max_size=4)


def _message(number: int, parts: list[tuple[str, int]]) -> Message:
    return {
        "id": f"m{number}",
        "role": "assistant",
        "parts": [_part(index, kind, size) for index, (kind, size) in enumerate(parts)],
        "at": 1,
        "seq": number + 1,
        "after": None,
        "status": "complete",
    }


def _sizes(messages: list[Any]) -> list[int]:
    return [max(len(JSON_CODEC.encode(message)), len(MSGPACK_CODEC.encode(message))) for message in messages]


def _open(message: Message, block: int) -> OpenMessage:
    """The same with its text in blocks, as it came."""
    parts: list[OpenPart] = []
    for part in message["parts"]:
        text = part.get("text", part.get("arguments"))
        fields = {name: part[name] for name in part if name not in ("kind", "text", "arguments")}
        blocks = [text[at : at + block] for at in range(0, len(text), block)] if isinstance(text, str) else None
        parts.append(OpenPart.of_blocks(str(part["kind"]), fields, blocks, done=False))
    return OpenMessage({name: value for name, value in message.items() if name != "parts"}, parts)


@given(_PARTS, st.none() | st.sampled_from([9_999, 40_000, 65_536]))
def test_entries_of_any_message_make_it_whole(parts: list[tuple[str, int]], block: int | None) -> None:
    """Each has about its bound at most and is known by its size; cut again they stay as they are."""
    message = _message(1, parts)
    found = list(entries(message if block is None else _open(message, block)))
    assert whole(entry for entry, _ in found) == message
    for number, (entry, size) in enumerate(found):
        assert entry.get("continued", False) is (number > 0)
        assert 0 <= size - len(JSON_CODEC.encode(entry)) <= 2_000
        assert size <= EVENT_BYTES + 1_000
        assert [again for again, _ in entries(entry)] == [entry]


def test_what_msgpack_makes_larger_fits_too() -> None:
    """Floats take more in msgpack than in JSON: an entry of nothing else is below the bound in both."""
    message = _message(1, [])
    floats: list[JSON] = [0.5] * 60_000
    message["parts"].extend({"kind": "data", "name": "n", "value": floats} for _ in range(9))
    assert max(_sizes([entry for entry, _ in entries(message)])) < MESSAGE_BYTES * 3 / 4


def test_a_kind_that_nobody_knows_is_never_cut() -> None:
    """What a newer version streams under a kind of its own stays as it is, open or ended."""
    message = _message(1, [])
    message["parts"] = [{"kind": "later", "delta": "x" * 90_000}]
    fields = {name: value for name, value in message.items() if name != "parts"}
    open_message = OpenMessage(fields, [OpenPart.of_blocks("later", {}, ["x" * 90_000], done=False)])
    assert [entry for entry, _ in entries(message)] == [message]
    assert [entry for entry, _ in entries(open_message)] == [message]


@given(st.lists(st.tuples(st.sampled_from(["r1", "r2"]), st.integers(0, 1), st.text(max_size=5)), min_size=1))
def test_merged_events_cover_the_same_text(chunks: list[tuple[str, int, str]]) -> None:
    """Adjacent deltas of one part become one event that says where it begins; nothing is lost, or out of order."""
    events: list[dict[str, Any]] = [
        {"type": "run.chunk", "seq": seq, "at": seq, "runId": run, "part": part, "kind": "text", "delta": delta}
        for seq, (run, part, delta) in enumerate(chunks, start=1)
    ]
    expected = 1
    text: dict[tuple[str, int], str] = {}
    before: dict[tuple[str, int], str] = {}
    for run, part, delta in chunks:
        before[run, part] = before.get((run, part), "") + delta
    last: tuple[str, int] | None = None
    for event in merged(events):
        assert event.get("from", event["seq"]) == expected
        expected = event["seq"] + 1
        key = (event["runId"], event["part"])
        assert key != last, "two adjacent events of one part could have been one"
        last = key
        text[key] = text.get(key, "") + event["delta"]
    assert text == before
    assert expected == len(events) + 1


_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "delta": st.sampled_from(["", "a", "b😀", 7]),
    "callId": st.sampled_from(["c1", "c2"]),
    "name": st.sampled_from(["weather", ""]),
    "input": st.just({"a": 1}),
    "done": st.just(True),
    "new": st.integers(0, 1),
}
_CHUNKS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.fixed_dictionaries(
        {
            "runId": st.sampled_from(["r1", "r2"]),
            "part": st.integers(0, 2),
            "kind": st.sampled_from(["text", "reasoning", "tool_call", "later"]),
        },
        optional=_FIELDS,
    ),
    max_size=12,
)


@given(_CHUNKS)
def test_a_merged_event_folds_as_those_it_stands_for(chunks: list[dict[str, Any]]) -> None:
    """Whatever chunks say, also one after the other of one part, a reader of merged ones has the same transcript."""
    start: list[dict[str, Any]] = [
        {"type": "run.started", "seq": number, "at": 1, "runId": f"r{number}", "messageId": f"m{number}", "attempt": 1,
         "agent": "a", "by": "ana", "device": "d", "after": None, "node": "n"}
        for number in (1, 2)
    ]  # fmt: skip
    events = [{"type": "run.chunk", "seq": seq, "at": seq, **chunk} for seq, chunk in enumerate(chunks, start=3)]
    one_by_one, together = Transcript(), Transcript()
    for transcript, read in ((one_by_one, events), (together, list(merged(events)))):
        for event in [*start, *read]:
            transcript.apply(cast("Event", event))
    assert together.messages() == one_by_one.messages()
    assert together.seq == one_by_one.seq


@pytest.mark.parametrize("text", ["\u0001", "😀", "é"])
@pytest.mark.parametrize("length", [1, 10_000, 25_000, 40_000])
def test_a_merged_event_fits_into_an_event(text: str, length: int) -> None:
    """Merging stops before an event grows too large, whatever its text takes."""
    events: list[dict[str, Any]] = [
        {"type": "run.chunk", "seq": seq, "at": 1, "runId": "r", "part": 0, "kind": "text", "delta": text * length}
        for seq in range(1, 40)
    ]
    assert max(_sizes(list(merged(events)))) <= EVENT_BYTES
