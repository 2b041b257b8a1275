"""Text that goes on, decided without a change of the state: the same events, and the same state behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.messages import TEXT_KINDS
from holdfast.server.registry import Chunk, Context, Finish, Owner, SessionState, decide
from holdfast.server.registry.text import numbered, take_in
from tests.support.cluster import cluster
from tests.support.doubles import settled
from tests.support.pure_session import AGENTS, PureSession, dump
from tests.support.strategies import session_steps, texts
from tests.support.two_writers import SharedLog, Step


@dataclass
class Piece:
    """What a speaker has brought."""

    work: Any


@dataclass
class Speaker:
    """Who has brought it."""

    owner: Owner


Said = list[tuple[Speaker, list[Piece]]]
chunks = st.lists(
    st.tuples(st.sampled_from(["text", "text", "text", "reasoning", "tool_call", "novel"]), texts, st.integers(0, 9)),
    min_size=1,
    max_size=4,
)
speeches = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9), chunks), min_size=1, max_size=3)


def said_in(state: SessionState, speeches: list[tuple[int, int, Any]]) -> Said:
    """Fresh chunks each time, as deciding them numbers them in place."""
    said: Said = []
    for which, stale, pieces in speeches:
        run = state.runs.get(f"r{which}")
        node, attempt = ("a", 1) if run is None else (run.node, run.attempt)
        owner = Owner(f"r{which}", "z" if stale == 1 else node, attempt + (stale == 0))
        works: list[Piece] = []
        for kind, delta, more in pieces:
            extra: Any = {"done": True} if more == 0 else {}
            names: Any = {"callId": "c1", "name": "f"} if kind == "tool_call" else {}
            works.append(Piece(Chunk.of(owner, kind, {**names, "delta": delta, **extra})))
        said.append((Speaker(owner), works))
    return said


def one_by_one(state: SessionState, said: Said, now: int) -> tuple[list[Any], bool]:
    """The events, decided and folded into the state; and whether all of it went on in the parts that were open."""
    goes_on = True
    last = {
        run_id: len(run.message.parts) - 1 for run_id, run in state.runs.items() if run.message is not None
    }  # fmt: skip
    events: list[Any] = []
    context = Context(now=now, node="a", agents=AGENTS)
    for speaker, pieces in said:
        for piece in pieces:
            decision = decide(state, piece.work, context)
            events += [dict(record.event) for record in decision.records]
            if decision.refused:
                goes_on = False
                continue
            event: Any = decision.records[0].event
            plain = event["kind"] in TEXT_KINDS and "done" not in event
            goes_on = goes_on and plain and event["part"] == last[speaker.owner.run_id]
    return events, goes_on


@given(session_steps, speeches, st.integers(-2_000, 2_000))
def test_text_is_what_deciding_it_one_by_one_makes_of_it(steps: list[Step], speeches: Any, ahead: int) -> None:
    """Numbers, times, text and boundaries; None, and nothing changed, exactly where anything else happens."""
    shared = SharedLog()
    for step in steps:
        shared.take(step)
        shared.take(("work", "a"))
    state, other = shared.log.load(), shared.log.load()
    before, now = dump(state), state.at + ahead
    events, goes_on = one_by_one(other, said_in(state, speeches), now)
    found = numbered(state, said_in(state, speeches), now)
    assert dump(state) == before
    if not goes_on:
        assert found is None
        return
    assert found is not None
    assert found == events
    assert [list(event) for event in found] == [list(event) for event in events]
    take_in(state, found)
    assert dump(state) == dump(other)
    for run_id, run in state.runs.items():
        assert run.boundaries == other.runs[run_id].boundaries


def _speaking() -> tuple[PureSession, Owner]:
    session = PureSession()
    session.send("r1")
    session.say("r1", "one")
    return session, session.owner("r1")


def _of(owner: Owner, *works: Any) -> Said:
    return [(Speaker(owner), [Piece(work) for work in works])]


@pytest.mark.parametrize("clock", [-5_000, 0, 5_000])
def test_text_goes_on_in_the_open_part(clock: int) -> None:
    """With the numbers behind the head, and a time that never goes back."""
    session, owner = _speaking()
    state = session.state
    seq, at = state.seq, state.at
    said = _of(owner, *(Chunk.of(owner, "text", {"delta": delta}) for delta in ("two", "", "three")))
    events = numbered(state, said, at + clock)
    assert events is not None
    assert [(event["seq"], event["part"], event["delta"]) for event in events] == [
        (seq + 1, 0, "two"),
        (seq + 2, 0, ""),
        (seq + 3, 0, "three"),
    ]
    assert {event["at"] for event in events} == {max(at, at + clock)}
    assert (state.seq, session.texts("r1")) == (seq, ["one"])
    take_in(state, events)
    assert (state.seq, state.at, session.texts("r1")) == (seq + 3, max(at, at + clock), ["onetwothree"])
    assert state.runs["r1"].kept(seq + 1) == [{"part": 0, "length": 6}]


def test_text_of_an_owner_that_is_no_longer_one_is_not_taken() -> None:
    """A later attempt or another node works on the run, or nobody does: it is decided, and refused."""
    session, owner = _speaking()
    for other in (Owner("r1", owner.node, 2), Owner("r1", "n2", owner.attempt), Owner("r9", owner.node, 1)):
        assert numbered(session.state, _of(other, Chunk.of(other, "text", {"delta": "x"})), 0) is None
    session.finish("r1")
    assert numbered(session.state, _of(owner, Chunk.of(owner, "text", {"delta": "x"})), 0) is None


def test_text_behind_a_steer_begins_a_part() -> None:
    """The part before it is closed: what comes is decided, and not put behind it."""
    session, owner = _speaking()
    session.ask("steer", "s1", text="on", runId="r1")
    session.take("r1")
    assert numbered(session.state, _of(owner, Chunk.of(owner, "text", {"delta": "x"})), 0) is None


def test_what_is_more_than_text_is_decided() -> None:
    """A chunk that closes its part does something, and behind it another part begins."""
    session, owner = _speaking()
    assert numbered(session.state, _of(owner, Chunk.of(owner, "text", {"delta": "x", "done": True})), 0) is None
    session.say("r1", "two", done=True)
    assert numbered(session.state, _of(owner, Chunk.of(owner, "text", {"delta": "x"})), 0) is None
    session.say("r1", "three")
    events = numbered(session.state, _of(owner, Chunk.of(owner, "text", {"delta": "x"})), 0)
    assert events is not None
    assert [event["part"] for event in events] == [1]
    assert numbered(session.state, _of(owner, Finish(owner, "completed")), 0) is None
    session.say("r1", "four", kind="novel")
    assert numbered(session.state, _of(owner, Chunk.of(owner, "novel", {"delta": "x"})), 0) is None


async def test_an_agent_that_yields_an_empty_text_adds_nothing() -> None:
    """Neither as the first thing that it says nor later: no event, and no part, comes of it."""
    async with cluster() as c:
        device = await c.device()
        await device.send("send", id="r1", text="go")
        call = await c.puppet.call()
        call.say("")
        await settled()
        assert c.of("r1", "run.chunk") == []
        call.say("a", "", "b", "")
        await settled()
        assert c.text("r1") == device.text("r1") == "ab"
        assert "" not in [event["delta"] for event in c.of("r1", "run.chunk")]
        call.end()
        await device.wire.event("run.ended", runId="r1")
