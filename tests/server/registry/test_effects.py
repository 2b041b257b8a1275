"""What follows from events for those who work here: each kind, with and without somebody who does."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.server.registry import Owner, Settle, Stop, Sweep, Upkeep
from holdfast.server.registry.effects import (
    Drop,
    Ended,
    Reconcile,
    Resolved,
    Start,
    Steered,
    Unsteered,
    abandonable,
    effects,
    promotable,
    reconciled,
)
from tests.support.pure_session import PureSession

NODE = "n1"


def last_of(session: PureSession, before: int, *, works: bool, node: str = NODE) -> list[Any]:
    """What follows from the events behind the first `before`."""
    return effects(session.state, session.events()[before:], node=node, working={"r1"} if works else set())


def started() -> PureSession:
    """A session whose run r1 goes on here."""
    session = PureSession()
    session.send("r1")
    return session


class Case:
    """One thing that happens, and what it means to a worker of r1."""

    def __init__(self, session: PureSession) -> None:
        self.session = session
        self.before = len(session.events())

    def effects(self, *, works: bool) -> list[Any]:
        """Of what has happened since."""
        return last_of(self.session, self.before, works=works)


def _resolved() -> tuple[Case, list[Any]]:
    session = started()
    session.request("r1", "q1")
    case = Case(session)
    session.ask("answer", "a1", runId="r1", requestId="q1", value="yes")
    return case, [Resolved("r1", session.last())]


def _steered() -> tuple[Case, list[Any]]:
    case = Case(started())
    case.session.ask("steer", "s1", text="on", runId="r1", boundary="step")
    return case, [Steered("r1", "s1", "step")]


def _unsteered() -> tuple[Case, list[Any]]:
    session = started()
    session.ask("steer", "s1", text="on", runId="r1")
    case = Case(session)
    session.ask("withdraw", "w1", steerId="s1")
    return case, [Unsteered("r1", "s1")]


def _completed() -> tuple[Case, list[Any]]:
    case = Case(started())
    case.session.finish("r1")
    return case, [Ended("r1", case.session.last())]


def _chunk() -> tuple[Case, list[Any]]:
    case = Case(started())
    case.session.say("r1", "one")
    return case, []


def _requested() -> tuple[Case, list[Any]]:
    case = Case(started())
    case.session.request("r1", "q1")
    return case, []


def _applied() -> tuple[Case, list[Any]]:
    session = started()
    session.ask("steer", "s1", text="on", runId="r1")
    case = Case(session)
    session.take("r1")
    return case, []


def _queued() -> tuple[Case, list[Any]]:
    case = Case(started())
    case.session.send("r2")
    return case, []


CASES = [_resolved, _steered, _unsteered, _completed, _chunk, _requested, _applied, _queued]


@pytest.mark.parametrize("make", CASES, ids=[make.__name__[1:] for make in CASES])
@pytest.mark.parametrize("works", [True, False])
def test_who_works_on_the_run_is_told_and_nobody_else(make: Any, *, works: bool) -> None:
    """Each kind of event: the worker of its run, if there is one here."""
    case, told = make()
    assert case.effects(works=works) == (told if works else [])


def test_a_run_that_starts_here_is_worked_on_from_then_on() -> None:
    """What comes in the same batch behind its start is for its worker already."""
    session = started()
    session.ask("steer", "s1", text="on", runId="r1")
    working: set[str] = set()
    found = effects(session.state, session.events(), node=NODE, working=working)
    assert working == {"r1"}
    first, second = found
    assert isinstance(first, Start)
    assert first.run is session.state.runs["r1"]
    assert first.view is session.state.transcript.runs["r1"].info
    assert isinstance(second, Steered)


def test_a_run_that_starts_elsewhere_concerns_nobody_here() -> None:
    """Another node works on it."""
    session = started()
    assert last_of(session, 0, works=False, node="n2") == []


def test_a_run_that_was_taken_over_elsewhere_is_no_longer_worked_on_here() -> None:
    """Its latest start names another node: who works on it here stops, without an event."""
    session = started()
    assert last_of(session, 0, works=True, node="n2") == [Ended("r1", None)]


def test_a_start_that_a_later_attempt_has_replaced_starts_nobody() -> None:
    """Both in what was missed: only the latest attempt is worked on, and who works on the earlier one stops."""
    session = PureSession()
    session.send("r1", agent="phoenix")
    session.set(node="n2", live_nodes=frozenset({"n2"}))
    session.work(Sweep())
    session.set(node="n1", live_nodes=frozenset({"n1"}))
    session.work(Sweep())
    starts = [event for event in session.events("run.started") if event["runId"] == "r1"]
    assert [(event["node"], event["attempt"]) for event in starts] == [("n1", 1), ("n2", 2), ("n1", 3)]
    assert effects(session.state, starts[:1], node=NODE, working=set()) == []
    assert effects(session.state, starts[:1], node=NODE, working={"r1"}) == [Ended("r1", None)]
    (start,) = effects(session.state, starts, node=NODE, working=set())
    assert isinstance(start, Start)


def test_a_run_that_starts_and_ends_in_one_batch_has_no_worker() -> None:
    """It was done before anybody could begin: nobody is started and nobody is told."""
    session = started()
    session.finish("r1")
    assert last_of(session, 0, works=False) == []


def test_a_run_that_was_archived_since_its_start_has_no_worker() -> None:
    """The state does not know it any more: who works on it here stops."""
    session = started()
    session.finish("r1")
    start = session.events("run.started")
    session.compact()
    assert effects(session.state, start, node=NODE, working=set()) == []
    assert effects(session.state, start, node=NODE, working={"r1"}) == [Ended("r1", None)]


def test_a_stop_that_nobody_here_has_to_obey_is_settled() -> None:
    """The run is this node's and nobody works on it: there is nothing to wait for."""
    session = started()
    session.ask("cancel", "k1", runId="r1")
    end = session.events("run.ended")
    settle = Settle(Owner("r1", NODE, 1), stopped_after_ms=0, confirmed=True)
    assert effects(session.state, end, node=NODE, working=set()) == [settle]
    assert effects(session.state, end, node="n2", working=set()) == []
    assert effects(session.state, end, node=NODE, working={"r1"}) == [Ended("r1", end[0])]
    session.settle("r1")
    assert effects(session.state, end, node=NODE, working=set()) == []


def test_a_start_that_was_stopped_in_the_same_batch_is_settled() -> None:
    """It starts nobody; its end is one that somebody has to settle."""
    session = started()
    session.ask("cancel", "k1", runId="r1")
    assert last_of(session, 0, works=False) == [Settle(Owner("r1", NODE, 1), stopped_after_ms=0, confirmed=True)]


# After events were missed


def _reconciled(session: PureSession, *, told: bool = False, owner: Owner | None = None) -> list[Any]:
    return reconciled(session.state, {owner or Owner("r1", NODE, 1): told}, node=NODE)


def test_a_run_that_goes_on_is_told_how_it_stands() -> None:
    """Nothing is swept where all that goes on here is worked on."""
    session = started()
    assert _reconciled(session) == [Reconcile("r1", session.state.transcript.runs["r1"].info)]


def test_a_worker_of_a_run_that_nobody_knows_stops() -> None:
    """The log has lost it."""
    assert _reconciled(PureSession()) == [Ended("r1", None)]


@pytest.mark.parametrize("owner", [Owner("r1", NODE, 2), Owner("r1", "n2", 1)])
def test_a_worker_of_another_attempt_stops(owner: Owner) -> None:
    """The run is no longer its own."""
    assert _reconciled(started(), owner=owner) == [Ended("r1", None)]


def test_a_worker_of_a_run_that_is_closed_stops() -> None:
    """It ended, and was settled if it had to be."""
    session = started()
    session.finish("r1")
    assert _reconciled(session) == [Ended("r1", None)]


def test_a_worker_that_missed_a_stop_is_told_of_it() -> None:
    """It has to settle it, as if it had heard of it."""
    session = started()
    session.ask("cancel", "k1", runId="r1")
    assert _reconciled(session) == [Ended("r1", {"reason": "cancelled"})]


def test_a_worker_whose_end_was_lost_does_not_go_on() -> None:
    """It was told that the run has ended, and the log does not say so: the sweep takes the run."""
    assert _reconciled(started(), told=True) == [Drop("r1"), Sweep()]


def test_a_run_of_this_node_that_nobody_works_on_is_swept() -> None:
    """Whether it goes on or has to be settled; not what is another node's, or queued, or closed."""
    session = started()
    assert reconciled(session.state, {}, node=NODE) == [Sweep()]
    assert reconciled(session.state, {}, node="n2") == []
    session.ask("cancel", "k1", runId="r1")
    assert reconciled(session.state, {}, node=NODE) == [Sweep()]
    session.settle("r1")
    assert reconciled(session.state, {}, node=NODE) == []


# What is due


def test_the_queues_head_is_promoted_where_it_can_run() -> None:
    """Not while a run is busy, on a node that drains, or without its agent."""
    session = started()
    session.send("r2")
    assert promotable(session.state, agents=["solo"], accepting=True) is None
    session.set(accepting=False)
    session.finish("r1")
    assert session.state.queue == ["r2"]
    assert promotable(session.state, agents=["solo"], accepting=True) == Upkeep()
    assert promotable(session.state, agents=["solo"], accepting=False) is None
    assert promotable(session.state, agents=["phoenix"], accepting=True) is None
    session.work(Stop("r2", "shutdown"))
    assert promotable(PureSession().state, agents=["solo"], accepting=True) is None


def test_a_run_may_be_abandoned_while_it_is_open() -> None:
    """Only one that was sent to end when nobody watches."""
    session = started()
    assert not abandonable(session.state)
    session.send("r2", whenAbandoned={"cancelAfterMs": 1_000})
    assert abandonable(session.state)
    session.ask("cancel", "k1", runId="r2")
    assert not abandonable(session.state)
