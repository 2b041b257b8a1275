"""What follows from each end in the log: the steers it sends or returns, what is settled, and who is next."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.server.registry import RunPhase
from holdfast.server.registry.draft import Draft
from tests.support.pure_session import PureSession
from tests.support.vectors import ENDS, ends_of


def end(session: PureSession, run_id: str, reason: str) -> list[dict[str, Any]]:
    """Ends the run for that reason, and what this adds to the log."""
    draft = Draft(session.state, session.context)
    known: Any = reason
    draft.end(session.state.runs[run_id], known)
    events: list[Any] = [record.event for record in draft.decision.records]
    return events


@pytest.mark.parametrize("reason", ends_of("running"))
def test_an_end_of_a_run_that_goes_on(reason: str) -> None:
    """Steers are sent ahead of the queue or come back, as the end says; the next of the queue starts in any case."""
    session = PureSession()
    for run_id in ("r", "next"):
        session.send(run_id)
    for steer_id, if_ended in (("s1", "send"), ("s2", "return"), ("s3", "send")):
        session.ask("steer", steer_id, runId="r", text=steer_id, boundary="step", ifEnded=if_ended)
    ended, *more = end(session, "r", reason)
    sends = ENDS[reason]["steers"] == "sent"
    assert (ended["type"], ended["reason"]) == ("run.ended", reason)
    assert [steer["steerId"] for steer in ended["returned"]] == (["s2"] if sends else ["s1", "s2", "s3"])
    queued = [(event["runId"], event["position"]) for event in more if event["type"] == "run.queued"]
    assert queued == ([("s1", 1), ("s3", 2)] if sends else [])
    assert [event["runId"] for event in more if event["type"] == "run.started"] == ["s1" if sends else "next"]
    assert session.state.runs["r"].phase is (RunPhase.STOPPING if ENDS[reason]["settles"] else RunPhase.CLOSED)
    assert session.state.transcript.messages()[1]["status"] == ENDS[reason]["status"]


@pytest.mark.parametrize("reason", ends_of("queued"))
def test_an_end_of_a_queued_run(reason: str) -> None:
    """It leaves the queue, and nothing is waited for."""
    session = PureSession()
    for run_id in ("main", "r", "next"):
        session.send(run_id)
    session.ask("steer", "s", runId="r", text="rather", boundary="step", ifEnded="send")
    ended, *more = end(session, "r", reason)
    sends = ENDS[reason]["steers"] == "sent"
    assert len(ended["returned"]) == (0 if sends else 1)
    assert [event["runId"] for event in more] == (["s"] if sends else [])
    assert session.state.queue == (["s", "next"] if sends else ["next"])
    assert session.state.runs["r"].phase is RunPhase.CLOSED
