"""Snapshots and pages cut into server messages, and events merged for slow readers."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC, Transcript
from holdfast.protocol.control import Snapshot
from holdfast.protocol.events import Event, Message, Part
from holdfast.protocol.messages import join_continued
from holdfast.protocol.values import EVENT_BYTES, MESSAGE_BYTES
from holdfast.server.paging import merged, pages, snapshots

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


@given(st.lists(_PARTS, max_size=3))
def test_a_snapshot_of_any_size_arrives_whole(contents: list[list[tuple[str, int]]]) -> None:
    """Every server message is small enough, and together they are the messages that were cut."""
    messages = [_message(number, parts) for number, parts in enumerate(contents)]
    sent = list(snapshots(epoch="e", seq=9, at=1, reset=False, messages=messages, runs=[], more=False))
    assert max(_sizes(sent)) <= MESSAGE_BYTES
    assert [message["last"] for message in sent] == [False] * (len(sent) - 1) + [True]
    transcript = Transcript()
    for message in sent:
        transcript.load(cast("Snapshot", message))
    assert transcript.messages() == messages


@given(st.lists(_PARTS, max_size=3))
def test_pages_of_any_size_arrive_whole(contents: list[list[tuple[str, int]]]) -> None:
    """The same for the answer to `history`, which has at least one page."""
    messages = [_message(number, parts) for number, parts in enumerate(contents)]
    sent = list(pages("h1", messages, more=True))
    assert max(_sizes(sent)) <= MESSAGE_BYTES
    joined: list[Message] = []
    for page in sent:
        joined = join_continued(joined, page["messages"])
    assert joined == messages


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


def test_a_merged_event_fits_into_an_event() -> None:
    """Merging stops before an event grows too large."""
    events: list[dict[str, Any]] = [
        {"type": "run.chunk", "seq": seq, "at": 1, "runId": "r", "part": 0, "kind": "text", "delta": "\u0001" * 10_000}
        for seq in range(1, 40)
    ]
    assert max(_sizes(list(merged(events)))) <= EVENT_BYTES
