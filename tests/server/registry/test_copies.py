"""A copy of a state goes on by itself: what is folded into one of the two is not seen in the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given

from holdfast.protocol.messages import OpenMessage, OpenPart
from holdfast.protocol.transcript import ENDED_RUNS_KEPT
from holdfast.server.registry import Record, SessionState, compact, compacted, fold
from tests.support.memory_log import through_json
from tests.support.pure_session import PureSession, dump
from tests.support.strategies import session_steps
from tests.support.two_writers import SharedLog, Step


def dumped(state: SessionState) -> bytes:
    """All there is to a state, as bytes: a mutable value that two states share cannot hide in it."""
    return orjson.dumps(dump(state))


def taken(shared: SharedLog, steps: Sequence[Step]) -> list[Record]:
    """What these steps add to the log, as it comes back from a store."""
    before = len(shared.log.batches)
    for step in steps:
        shared.take(step)
        shared.take(("work", "a"))
    records = [record for batch in shared.log.batches[before:] for record in batch.records]
    return [Record(*through_json(list(record))) for record in records]


@given(session_steps, session_steps)
def test_a_copy_that_moves_on_leaves_the_original_as_it_was(first: list[Step], then: list[Step]) -> None:
    """And the other way round; the same events make the same of both."""
    shared = SharedLog()
    taken(shared, first)
    state = shared.log.load()
    copy, still = state.copy(), state.copy()
    before = dumped(state)
    assert dumped(copy) == before
    more = taken(shared, then)
    for record in more:
        fold(copy, record)
    assert dumped(state) == before
    for record in through_json([list(record) for record in more]):
        fold(state, Record(*record))
    assert dumped(state) == dumped(copy) == dumped(shared.log.load())
    assert dumped(still) == before


@given(session_steps)
def test_a_copy_that_is_archived_leaves_the_original_as_it_was(steps: list[Step]) -> None:
    """What has ended leaves the copy only."""
    shared = SharedLog()
    taken(shared, steps)
    state = shared.log.load()
    before = dumped(state)
    copy = state.copy()
    compacted(copy, compact(copy, now=shared.log.now + 10**9, replay_window_ms=0))
    assert dumped(state) == before


def test_what_has_ended_is_shared() -> None:
    """A copy costs what goes on, and not what has been: closed runs and their messages are the same objects."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "one")
    session.finish("r1")
    session.send("r2")
    copy = session.state.copy()
    assert copy.runs["r1"] is session.state.runs["r1"]
    assert copy.runs["r2"] is not session.state.runs["r2"]
    ended = session.state.transcript.finished()
    assert [id(message) for message in copy.transcript.finished()] == [id(message) for message in ended]


def test_everything_that_may_happen_to_a_copy_leaves_the_original() -> None:
    """One of each, on the copy: text, a request that is answered, a steer, an end and its settling, another start."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "one")
    session.request("r1", "q1")
    session.send("r2")
    original, before = session.state, dumped(session.state)
    resolved, ended = dict(original.runs["r1"].resolved), original.transcript.messages()
    session.state = original.copy()
    session.say("r1", " two")
    session.ask("answer", "a1", runId="r1", requestId="q1", value="yes")
    session.ask("steer", "s1", text="on", runId="r1")
    session.take("r1")
    session.ask("cancel", "k1", runId="r1")
    session.settle("r1")
    assert session.main() == "r2"
    assert dumped(original) == before
    assert original.runs["r1"].resolved == resolved == {}
    assert original.transcript.messages() == ended
    assert original.transcript.finished() == [message for message in ended if message["role"] == "user"]
    first = next(message for message in session.state.transcript.messages() if message.get("id") == ended[-1]["id"])
    assert [part["kind"] for part in first["parts"]] == ["text", "steer"]


def test_what_a_copy_is_told_is_shown_by_the_copy() -> None:
    """A message that goes on is one object in all of a state's places: text is seen wherever it is looked for."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "one")
    session.state = session.state.copy()
    session.say("r1", " two")
    assert session.texts("r1") == ["one two"]
    message = session.state.runs["r1"].message
    assert message is session.state.transcript.runs["r1"].message


def test_a_copy_forgets_ended_runs_by_itself() -> None:
    """As many runs as are kept end in the copy: the original still shows those that it has."""
    session = PureSession()
    session.careful = False
    session.ask("cancel", "k0", runId="p0", ifUnknown="prevent")
    original = session.state
    session.state = original.copy()
    for number in range(1, ENDED_RUNS_KEPT + 1):
        session.ask("cancel", f"k{number}", runId=f"p{number}", ifUnknown="prevent")
    assert "p0" not in session.state.transcript.runs
    session.state = original
    session.ask("cancel", "k99", runId="p99", ifUnknown="prevent")
    assert [*original.transcript.runs] == ["p0", "p99"]


@pytest.mark.parametrize("how", ["steer", "keep"])
def test_what_cuts_a_message_puts_other_parts_in_place_of_the_shared_ones(how: str) -> None:
    """A part that is done stands in the message and in its copy: a cut of one is not seen in the other."""
    parts = [OpenPart("text", {}, "one two", done=True), OpenPart("reasoning", {}, "hm hm", done=True)]
    message = OpenMessage({"id": "a1"}, [*parts, OpenPart("text", {}, "three")])
    copy = message.copy()
    assert [copy.parts[number] is parts[number] for number in range(2)] == [True, True]
    before: Any = through_json(message.view())
    kept: Any = [{"part": 0, "length": 3}, {"part": 2, "length": 2}]
    if how == "steer":
        copy.steer({"steerId": "s1", "parts": [], "by": "ana", "device": "phone"}, kept)
    else:
        copy.keep(kept)
    assert through_json(message.view()) == before
    assert [part.done for part in message.parts] == [True, True, False]
    assert copy.parts[0].text == "one"
    message.parts[2].add(" four")
    assert "four" not in orjson.dumps(copy.view()).decode()
