"""The fold of a log: the same for who saw it from the beginning, and for who came later."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.close_codes import CloseCode, may_reconnect
from holdfast.protocol.messages import join_continued, reopen
from holdfast.protocol.transcript import ENDED_RUNS_KEPT, Transcript, TranscriptRun
from tests.support.strategies import LogMaker, logs, texts

BASE: dict[str, Any] = {"at": 1, "runId": "r1"}


def folded(events: list[dict[str, Any]]) -> Transcript:
    """The transcript of a log from its beginning."""
    transcript = Transcript()
    for event in events:
        transcript.apply(event)
    return transcript


def snapshot(transcript: Transcript, *, epoch: str = "e1", **fields: Any) -> Any:
    """The transcript as a server would send it, in one message."""
    return {
        "type": "snapshot",
        "epoch": epoch,
        "seq": transcript.seq,
        "at": transcript.at,
        "reset": False,
        "messages": transcript.messages(),
        "runs": [run.snapshot() for run in transcript.runs.values()],
        "more": False,
        "last": True,
        **fields,
    }


def shown(transcript: Transcript) -> Any:
    """Everything that a reader is shown."""
    runs = [run.snapshot() for run in transcript.runs.values()]
    return transcript.seq, transcript.at, transcript.messages(), runs


def started(*, text: str = "Olá 👋") -> Transcript:
    """A run that has said something."""
    maker = LogMaker()
    maker.take((9, 1, "text", "hi", False))
    maker.take((9, 1, "text", text, False))
    return folded(maker.events)


@given(logs, st.data())
def test_a_snapshot_anywhere(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """A snapshot cut anywhere, and the rest of the log folded onto it, is the whole log folded."""
    cut = data.draw(st.integers(0, len(events)))
    late = Transcript()
    assert late.load(snapshot(folded(events[:cut])))
    for event in events[cut:]:
        late.apply(event)
    assert shown(late) == shown(folded(events))


@given(logs, st.data())
def test_a_snapshot_in_pieces(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """However a snapshot is cut into messages, and large messages into entries, the joined whole is the same."""
    source = folded(events)
    entries: list[Any] = []
    for message in source.messages():
        entries += split(message, data)
    runs = [run.snapshot() for run in source.runs.values()]
    late = Transcript()
    late.load(snapshot(folded([]), epoch="older"))
    while len(entries) > 1 or len(runs) > 1:
        count, run_count = data.draw(st.integers(0, len(entries))), data.draw(st.integers(0, len(runs)))
        assert not late.load(snapshot(source, messages=entries[:count], runs=runs[:run_count], last=False))
        assert late.epoch == "older"
        entries, runs = entries[count:], runs[run_count:]
        if not count and not run_count:
            break
    assert late.load(snapshot(source, messages=entries, runs=runs))
    assert (late.epoch, shown(late)) == ("e1", shown(source))


def split(message: Any, data: st.DataObject) -> list[Any]:
    """A message as entries: between its parts, or within its last text."""
    parts: list[Any] = message["parts"]
    at = data.draw(st.integers(0, len(parts)))
    head, tail = parts[:at], parts[at:]
    if tail and tail[0]["kind"] in ("text", "reasoning") and data.draw(st.booleans()):
        where = data.draw(st.integers(0, len(tail[0]["text"])))
        first = {**tail[0], "text": tail[0]["text"][:where]}
        rest = {**tail[0], "text": tail[0]["text"][where:], "continued": True}
        return [{**message, "parts": [*head, first]}, {**message, "parts": [rest, *tail[1:]], "continued": True}]
    if not tail:
        return [message]
    return [{**message, "parts": head}, {**message, "parts": tail, "continued": True}]


@given(logs)
def test_views_do_not_change(events: list[dict[str, Any]]) -> None:
    """What was shown before an event is not changed by it."""
    transcript = Transcript()
    before: list[tuple[Any, str]] = []
    for event in events:
        transcript.apply(event)
        view = shown(transcript)
        before.append((view, repr(view)))
    assert all(repr(view) == text for view, text in before)


@given(logs)
def test_a_loaded_snapshot_is_left_alone(events: list[dict[str, Any]]) -> None:
    """Folding on does not change the snapshot that was loaded."""
    half = len(events) // 2
    loaded = snapshot(folded(events[:half]))
    text = repr(loaded)
    late = Transcript()
    late.load(loaded)
    for event in events[half:]:
        late.apply(event)
    assert repr(loaded) == text


@given(texts, st.integers(0, 10))
def test_cuts_count_code_points(text: str, length: int) -> None:
    """A cut keeps so many code points; one beyond the end cuts nothing."""
    transcript = started(text=text)
    kept = [{"part": 0, "length": length}]
    transcript.apply({**BASE, "type": "run.ended", "seq": 9, "reason": "cancelled", "returned": [], "kept": kept})
    message = transcript.message("a~r1")
    assert message is not None
    assert (message["parts"], message["status"]) == ([{"kind": "text", "text": text[:length]}], "interrupted")


def test_unfinished_snapshots() -> None:
    """A snapshot that never became whole leaves what was there, whether contact is lost or another one begins."""
    whole = started()
    before = shown(whole)
    other = folded([])
    assert not whole.load(snapshot(other, last=False, seq=50, messages=started().messages()))
    assert shown(whole) == before
    whole.discard_partial_snapshot()
    assert whole.load(snapshot(other, seq=50))
    assert whole.messages() == []
    assert not whole.load(snapshot(other, last=False, seq=60, messages=started().messages()))
    assert whole.load(snapshot(other, seq=61))
    assert whole.messages() == []


def test_what_is_not_held() -> None:
    """Events of runs and messages that a snapshot left out are passed over; a gap in parts too."""
    transcript = Transcript()
    events: list[dict[str, Any]] = [
        {"type": "run.chunk", "part": 0, "kind": "text", "delta": "x"},
        {"type": "run.requested", "request": {"id": "q"}},
        {"type": "run.resolved", "requestId": "q", "outcome": "answered"},
        {"type": "steer.accepted", "steerId": "s"},
        {"type": "steer.applied", "steerId": "s"},
        {"type": "steer.withdrawn", "steerId": "s"},
    ]
    for seq, event in enumerate(events, start=1):
        transcript.apply({**BASE, "seq": seq, **event})
    assert (transcript.seq, transcript.messages(), transcript.runs) == (6, [], {})
    source = started()
    late = Transcript()
    late.load(snapshot(source, messages=[]))
    late.apply({**BASE, "type": "run.chunk", "seq": 4, "part": 0, "kind": "text", "delta": "x"})
    late.apply({**BASE, "type": "steer.applied", "seq": 5, "steerId": "s"})
    late.apply({**BASE, "type": "run.started", "seq": 6, "attempt": 2})
    late.apply({**BASE, "type": "run.resolved", "seq": 7, "requestId": "q", "outcome": "expired"})
    late.apply({**BASE, "type": "run.ended", "seq": 8, "reason": "completed", "returned": []})
    assert late.messages() == []
    assert late.runs["r1"].ended
    source.apply({**BASE, "type": "run.chunk", "seq": 4, "part": 5, "kind": "text", "delta": "x"})
    assert source.messages()[1]["parts"] == [{"kind": "text", "text": "Olá 👋"}]


def test_a_cut_beyond_the_parts() -> None:
    """A steer's cut that names a part which the reader does not have cuts nothing."""
    source = started()
    fields: dict[str, Any] = {
        "steerId": "s",
        "parts": [],
        "boundary": "now",
        "ifEnded": "return",
        "by": "ana",
        "device": "phone",
    }
    source.apply({**BASE, "type": "steer.accepted", "seq": 4, **fields})
    source.apply({**BASE, "type": "steer.applied", "seq": 5, "steerId": "s", "kept": [{"part": 9, "length": 0}]})
    steer: dict[str, Any] = {"kind": "steer", "steerId": "s", "parts": [], "by": "ana", "device": "phone"}
    assert source.messages()[1]["parts"] == [{"kind": "text", "text": "Olá 👋"}, steer]


def test_what_is_kept_of_an_end() -> None:
    """Parts that are not listed are removed, but only those of text: what happened stays, in its order."""
    source = started()
    call: dict[str, Any] = {"kind": "tool_call", "callId": "c", "name": "f", "input": {}}
    source.apply({**BASE, "type": "run.chunk", "seq": 4, "part": 1, **call, "done": True})
    source.apply({**BASE, "type": "run.chunk", "seq": 5, "part": 2, "kind": "text", "delta": "unseen"})
    kept = [{"part": 0, "length": 3}]
    source.apply({**BASE, "type": "run.ended", "seq": 6, "reason": "cancelled", "returned": [], "kept": kept})
    assert source.messages()[1]["parts"] == [{"kind": "text", "text": "Olá"}, call]


def test_a_part_that_says_nothing() -> None:
    """A chunk may only close its part: the text is then empty."""
    source = started()
    source.apply({**BASE, "type": "run.chunk", "seq": 4, "part": 1, "kind": "reasoning", "done": True})
    assert source.messages()[1]["parts"][1] == {"kind": "reasoning", "text": ""}


def test_an_end_of_a_kind_to_come() -> None:
    """A reason newer than this version is shown as an interruption."""
    source = started()
    source.apply({**BASE, "type": "run.ended", "seq": 4, "reason": "evicted", "returned": []})
    assert source.messages()[1]["status"] == "interrupted"


def test_ended_runs_are_forgotten() -> None:
    """Only the last ended runs are held; open ones and messages all are."""
    transcript = started()
    for number in range(ENDED_RUNS_KEPT + 3):
        event = {"type": "run.ended", "seq": 10 + number, "at": 1, "runId": f"p{number}", "reason": "cancelled"}
        transcript.apply({**event, "returned": []})
    assert list(transcript.runs) == ["r1", *(f"p{number}" for number in range(3, ENDED_RUNS_KEPT + 3))]
    assert len(transcript.messages()) == 2


def test_forget() -> None:
    """Messages kept elsewhere are let go; unknown ids are no matter."""
    transcript = started()
    assert transcript.has_message("u~r1")
    transcript.forget(["u~r1", "nobody"])
    assert not transcript.has_message("u~r1")
    assert transcript.message("u~r1") is None
    assert [message["id"] for message in transcript.messages()] == ["a~r1"]


def test_restore() -> None:
    """A state kept elsewhere goes on as it was: open messages in the order of the log, ended runs last to go."""
    source = folded([])
    maker = LogMaker()
    for which in (1, 2):
        maker.take((3, which, "text", "hi", False))  # queued
    for which in (2, 1):
        maker.take((9, which, "text", "hi", False))  # started, the other way round
    maker.take((0, 3, "text", "", False))  # prevented
    source = folded(maker.events)
    runs = [
        TranscriptRun(run.snapshot(), None if run.message is None else reopen(run.message.view()))
        for run in source.runs.values()
    ]
    restored = Transcript()
    restored.restore("e1", source.seq, source.at, runs=runs)
    assert [message["id"] for message in restored.messages()] == ["a~r2", "a~r1"]
    assert shown(restored)[3] == shown(source)[3]
    assert restored.runs["r3"].ended


def test_join_continued() -> None:
    """Entries grow the message before them; a part is joined only where both sides say so."""
    first: Any = {"id": "m", "parts": []}
    more: Any = {"id": "m", "continued": True, "parts": [{"kind": "text", "text": "x", "continued": True}]}
    empty: Any = {"id": "m", "continued": True, "parts": []}
    assert join_continued([], [more]) == [more]
    assert join_continued([first], [empty, more]) == [{"id": "m", "parts": more["parts"]}]
    novel: Any = {"id": "m", "parts": [{"kind": "novel", "delta": [1]}]}
    tail: Any = {"id": "m", "continued": True, "parts": [{"kind": "novel", "continued": True, "delta": "y"}]}
    assert join_continued([novel], [tail])[0]["parts"] == [{"kind": "novel", "delta": "y"}]


def test_close_codes() -> None:
    """The range says whether to come back; of the standard codes only those of trouble do."""
    assert all(may_reconnect(code) for code in (1001, 1005, 1006, 1011, 1012, 1013, 4000, 4499, CloseCode.DRAINING))
    assert not any(may_reconnect(code) for code in (1000, 1002, 1003, 1007, 1008, 1009, 3999, 4500, 4999))
    assert not may_reconnect(CloseCode.TOKEN_REJECTED)
