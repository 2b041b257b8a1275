"""Deciding what agents bring, and answers to what they asked."""

from __future__ import annotations

import pytest

from holdfast.protocol.values import EVENT_BYTES
from holdfast.server.registry import (
    Chunk,
    Finish,
    OpenRequest,
    OwnedWork,
    Owner,
    RetractRequest,
    RunPhase,
    Settle,
    TakeSteers,
)
from tests.server.registry.test_send import refused
from tests.support.pure_session import NOW, PureSession


def works(owner: Owner) -> list[OwnedWork]:
    """One of everything that an owner brings but its settling."""
    return [
        Chunk.of(owner, "text", {"delta": "x"}),
        OpenRequest(owner, {"id": "q1", "kind": "input", "prompt": "?"}),
        RetractRequest(owner, "q1"),
        TakeSteers(owner),
        Finish(owner, "completed"),
    ]


def test_only_the_owner_counts() -> None:
    """Whoever is not the latest start's node and attempt, or names no run, is refused and adds nothing."""
    session = PureSession()
    session.send("r1")
    strangers = [Owner("r1", "n2", 1), Owner("r1", "n1", 2), Owner("r9", "n1", 1)]
    for owner in strangers:
        for work in [*works(owner), Settle(owner, 1, confirmed=True)]:
            decision = session.work(work)
            assert (decision.refused, decision.records) == (True, [])


def test_nothing_after_the_end() -> None:
    """The owner of a run that has ended is refused, but for its settling where that is due."""
    session = PureSession()
    session.send("r1")
    owner = session.owner("r1")
    assert session.work(Settle(owner, 1, confirmed=True)).refused
    session.ask("cancel", "k1", runId="r1")
    for work in works(owner):
        assert session.work(work).refused
    settled = session.work(Settle(owner, 7, confirmed=False, usage={"tokens": 3}))
    assert settled.records[0].event == {
        "type": "run.settled", "seq": 4, "at": NOW, "runId": "r1", "stoppedAfterMs": 7, "confirmed": False,
        "usage": {"tokens": 3},
    }  # fmt: skip
    assert session.phase("r1") is RunPhase.CLOSED


def test_parts() -> None:
    """Text goes on in the last part, a call's arguments in their own, and everything else begins a new one."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "a")
    session.say("r1", "b")
    session.say("r1", "c", "reasoning")
    session.say("r1", "d", done=True)
    session.say("r1", "e")
    owner = session.owner("r1")
    for call in ("c1", "c2", "c1"):
        session.work(Chunk.of(owner, "tool_call", {"callId": call, "name": "f", "delta": "{"}))
    session.work(Chunk.of(owner, "tool_call", {"callId": "c1", "name": "f", "input": {}, "done": True}))
    session.work(Chunk.of(owner, "tool_call", {"callId": "c1", "name": "f", "delta": "{"}))
    session.work(Chunk.of(owner, "data", {"name": "n", "value": 1}))
    session.work(Chunk.of(owner, "data", {"name": "n", "value": 2}))
    parts = [event["part"] for event in session.events("run.chunk")]
    assert parts == [0, 0, 1, 2, 3, 4, 5, 4, 4, 6, 7, 8]


def test_a_chunk_is_the_event_that_it_was_brought_as() -> None:
    """It is numbered where it stands, whole as it travels; after a lost race once more, and folded as it is then."""
    lost, session = PureSession(), PureSession()
    for each in (lost, session):
        each.send("r1")
        each.say("r1", "a")
    session.say("r1", "b", "reasoning")
    chunk = Chunk.of(session.owner("r1"), "text", {"delta": "c"})
    for each, numbered in ((lost, {"seq": 4, "part": 0}), (session, {"seq": 5, "part": 2})):
        each.set(now=NOW + numbered["seq"])
        each.work(chunk)
        assert each.records[-1].event is chunk.event
        assert list(chunk.event) == ["type", "seq", "at", "runId", "part", "kind", "delta"]
        assert chunk.event == {
            "type": "run.chunk", "at": NOW + numbered["seq"], "runId": "r1", "kind": "text", "delta": "c", **numbered
        }  # fmt: skip
        assert (each.state.seq, each.state.at) == (numbered["seq"], NOW + numbered["seq"])
    message = session.state.runs["r1"].message
    assert message is not None
    assert [part.text for part in message.parts] == ["a", "b", "c"]


def test_a_refused_chunk_is_left_as_it_was() -> None:
    """The event of one that does not count is not numbered."""
    session = PureSession()
    session.send("r1")
    owner = session.owner("r1")
    session.ask("cancel", "k1", runId="r1")
    chunk = Chunk.of(owner, "text", {"delta": "x"})
    assert session.work(chunk).refused
    assert (chunk.event["seq"], chunk.event["at"], chunk.event["part"]) == (0, 0, 0)


def test_finish() -> None:
    """An agent that is done ends its run with what it used, or with what went wrong."""
    session = PureSession()
    session.send("r1")
    session.finish("r1", usage={"tokens": 1})
    assert session.last().items() >= {"reason": "completed", "usage": {"tokens": 1}, "returned": []}.items()
    session.send("r2")
    session.finish("r2", "failed", error={"code": "agent", "message": "oh"})
    assert session.last()["error"] == {"code": "agent", "message": "oh"}


def test_finish_goes_on_with_a_steer() -> None:
    """An agent that is called again takes the steers that came meanwhile instead of ending."""
    session = PureSession()
    session.send("r1")
    session.ask("steer", "s1", text="x")
    decision = session.finish("r1", resume_on_steer=True)
    assert [steer["steerId"] for steer in decision.steers] == ["s1"]
    assert session.state.runs["r1"].active
    session.finish("r1", resume_on_steer=True)
    assert session.last()["reason"] == "completed"


def test_requests() -> None:
    """A run waits while something is open, and goes on when the last of it is resolved."""
    session = PureSession()
    session.send("r1")
    session.request("r1", "q1")
    session.request("r1", "q2")
    assert session.phase("r1") is RunPhase.WAITING
    ack = session.ask("answer", "k1", runId="r1", requestId="q1", value=None, client="bo/tablet")
    assert ack.items() >= {"outcome": "accepted", "runId": "r1", "seq": 5}.items()
    assert session.last().items() >= {"outcome": "answered", "value": None, "by": "bo", "device": "tablet"}.items()
    assert session.phase("r1") is RunPhase.WAITING
    session.work(RetractRequest(session.owner("r1"), "q2"))
    assert session.last()["outcome"] == "withdrawn"
    assert session.phase("r1") is RunPhase.RUNNING
    assert session.work(RetractRequest(session.owner("r1"), "q2")).records == []


def test_answers() -> None:
    """Each fate of a request has its answer, and a request is answered once."""
    session = PureSession()
    session.send("r1")
    session.request("r1", "q1")
    session.request("r1", "q2", expiresAt=NOW + 100)
    session.request("r1", "q3")
    session.ask("answer", "k1", runId="r1", requestId="q1", value=1)
    assert session.ask("answer", "k2", runId="r1", requestId="q1", value=2)["outcome"] == "already_answered"
    session.set(now=NOW + 100)
    late = session.ask("answer", "k3", runId="r1", requestId="q2", value=1)
    assert late.items() >= {"outcome": "expired", "seq": session.state.seq}.items()
    assert session.last()["outcome"] == "expired"
    assert "seq" not in session.ask("answer", "k4", runId="r1", requestId="q2", value=1)
    session.work(RetractRequest(session.owner("r1"), "q3"))
    assert session.ask("answer", "k5", runId="r1", requestId="q3", value=1)["outcome"] == "expired"
    for run_id in ("r1", "r9"):
        assert session.ask("answer", "k6", runId=run_id, requestId="q9", value=1)["outcome"] == "unknown_request"


def test_answer_too_large() -> None:
    """An answer that would not fit into its event is refused."""
    session = PureSession()
    session.send("r1")
    session.request("r1", "q1")
    error = refused(session, "answer", "k1", runId="r1", requestId="q1", value="x" * EVENT_BYTES)
    assert (error.code, error.path) == ("too_large", "$.value")


@pytest.mark.parametrize("archived", [False, True])
def test_answer_after_the_end(*, archived: bool) -> None:
    """Open requests end with their run: an outcome, with the terminal."""
    session = PureSession()
    session.send("r1")
    session.request("r1", "q1")
    session.finish("r1")
    if archived:
        session.compact()
    ack = session.ask("answer", "k1", runId="r1", requestId="q1", value=1)
    assert ack.items() >= {"outcome": "already_ended", "reason": "completed", "seq": 4}.items()
