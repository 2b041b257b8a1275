"""Deciding what time brings, and what dead nodes leave behind."""

from __future__ import annotations

from holdfast.server.registry import RunPhase, Settle, SteadyDues, Stop, Sweep, Upkeep, due_at, due_times
from tests.support.pure_session import NOW, PureSession


def test_deadline() -> None:
    """A run ends at its deadline, started or queued, and what waited behind it starts."""
    session = PureSession()
    session.send("r1", deadlineMs=100)
    session.send("r2", deadlineMs=50)
    session.send("r3")
    assert due_at(session.state, None) == NOW + 50
    session.set(now=NOW + 49)
    assert session.work(Upkeep()).records == []
    session.set(now=NOW + 100)
    session.work(Upkeep())
    ended = session.events("run.ended")
    assert [(event["runId"], event["reason"], event["cause"]) for event in ended] == [
        ("r1", "expired", "deadline"), ("r2", "expired", "deadline"),
    ]  # fmt: skip
    assert (ended[0]["by"], ended[0]["device"]) == ("holdfast", "n1")
    assert session.phase("r1") is RunPhase.STOPPING
    assert session.phase("r2") is RunPhase.CLOSED
    assert session.main() == "r3"
    assert due_at(session.state, None) is None


def test_abandoned() -> None:
    """A run that nobody has watched for its patience ends; while somebody watches, or nobody knows, it goes on."""
    session = PureSession()
    session.send("r1", whenAbandoned={"cancelAfterMs": 100})
    assert due_at(session.state, None) is None
    session.set(now=NOW + 500)
    assert session.work(Upkeep()).records == []
    session.set(unobserved_since=NOW + 450)
    assert due_at(session.state, NOW + 450) == NOW + 550
    assert session.work(Upkeep()).records == []
    session.set(now=NOW + 550)
    session.work(Upkeep())
    assert session.last().items() >= {"reason": "cancelled", "cause": "abandoned", "by": "holdfast"}.items()


def test_abandoned_counts_from_acceptance() -> None:
    """A session that was left alone long before does not end a run the moment it is sent."""
    session = PureSession(unobserved_since=0)
    session.send("r1", whenAbandoned={"cancelAfterMs": 100})
    assert session.work(Upkeep()).records == []
    assert due_at(session.state, 0) == NOW + 100


def test_requests_expire() -> None:
    """A request ends in time, those that wait longer go on."""
    session = PureSession()
    session.send("r1")
    session.request("r1", "q1", expiresAt=NOW + 10)
    session.request("r1", "q2", expiresAt=NOW + 20)
    session.request("r1", "q3")
    assert due_at(session.state, None) == NOW + 10
    session.set(now=NOW + 10)
    session.work(Upkeep())
    assert [(event["requestId"], event["outcome"]) for event in session.events("run.resolved")] == [("q1", "expired")]
    assert due_at(session.state, None) == NOW + 20


def test_claims_the_queue() -> None:
    """A queue that its last writer could not move on is taken up by whoever can run its head."""
    session = PureSession()
    session.send("r1")
    session.send("r2", agent="phoenix")
    agents = session.context.agents
    session.set(agents={"solo": agents["solo"]})
    session.finish("r1")
    assert session.work(Upkeep()).records == []
    assert session.work(Sweep()).records == []
    session.set(agents=agents, accepting=False)
    assert session.work(Upkeep()).records == []
    session.set(accepting=True, node="n2")
    session.work(Upkeep())
    assert session.last().items() >= {"runId": "r2", "node": "n2", "command": "r2"}.items()


def test_sweep_ends_what_nobody_works_on() -> None:
    """Runs of a node without a lease end `lost` with their text, steers go back, and the queue moves on."""
    session = PureSession()
    session.send("r1")
    session.send("r2")
    session.say("r1", "half")
    session.ask("steer", "s1", text="x", ifEnded="send")
    session.set(node="n2", live_nodes=frozenset({"n1", "n2"}))
    assert session.work(Sweep()).records == []
    session.set(live_nodes=frozenset({"n2"}))
    session.work(Sweep())
    ended = session.events("run.ended")[0]
    assert (ended["reason"], [steer["steerId"] for steer in ended["returned"]]) == ("lost", ["s1"])
    assert session.texts("r1") == ["half"]
    assert session.last().items() >= {"runId": "r2", "node": "n2"}.items()
    assert session.phase("r1") is RunPhase.CLOSED


def test_sweep_of_a_queue_whose_agent_is_gone() -> None:
    """Where no other node can have its agent, a queued run ends and lets the queue go on; elsewhere it waits."""
    session = PureSession()
    session.send("r1")
    for run_id, agent in (("r2", "phoenix"), ("r3", "solo"), ("r4", "phoenix")):
        session.send(run_id, agent=agent)
    session.ask("steer", "s1", runId="r2", text="x", ifEnded="send")
    session.set(node="n2", agents={"solo": session.context.agents["solo"]})
    session.work(Sweep())
    assert (session.main(), session.state.queue) == (None, ["r2", "r3", "r4"])
    session.set(alone=True)
    session.work(Sweep())
    ended = session.events("run.ended")[1:]
    assert [(event["runId"], event["reason"], event["cause"], event["by"]) for event in ended] == [
        ("r2", "cancelled", "unknown_agent", "holdfast"), ("r4", "cancelled", "unknown_agent", "holdfast"),
    ]  # fmt: skip
    assert [steer["steerId"] for steer in ended[0]["returned"]] == ["s1"]
    assert (session.main(), session.state.queue) == ("r3", [])


def test_sweep_of_the_own_node() -> None:
    """A run of this node that nobody works on here is as lost as a dead node's; one that is worked on is not."""
    session = PureSession()
    session.send("r1")
    session.set(working=frozenset({"r1"}))
    assert session.work(Sweep()).records == []
    session.set(working=frozenset[str]())
    session.work(Sweep())
    assert session.last()["reason"] == "lost"


def test_sweep_settles() -> None:
    """What a dead node has left unsettled is settled, honestly unconfirmed."""
    session = PureSession()
    session.send("r1")
    owner = session.owner("r1")
    session.ask("cancel", "k1", runId="r1")
    session.set(node="n2", now=NOW + 300)
    session.work(Sweep())
    assert session.last().items() >= {"type": "run.settled", "stoppedAfterMs": 300, "confirmed": False}.items()
    assert session.work(Settle(owner, 1, confirmed=True)).refused
    assert session.work(Sweep()).records == []


def test_sweep_restarts() -> None:
    """A restartable run goes on in another attempt: same message, parts kept and closed, requests withdrawn."""
    session = PureSession()
    session.send("r1", agent="phoenix")
    session.say("r1", "half")
    session.request("r1", "q1")
    session.ask("steer", "s1", text="x")
    old = session.owner("r1")
    session.set(node="n2")
    session.work(Sweep())
    assert [event["type"] for event in session.events()[-2:]] == ["run.resolved", "run.started"]
    assert session.last().items() >= {
        "runId": "r1", "attempt": 2, "node": "n2", "messageId": "a~r1", "after": "u~r1", "command": "r1",
    }.items()  # fmt: skip
    assert session.work(Settle(old, 1, confirmed=True)).refused
    session.say("r1", "more")
    assert session.texts("r1") == ["half", "more"]
    assert session.take("r1") == ["s1"]
    assert session.main() == "r1"
    assert session.ask("answer", "k1", runId="r1", requestId="q1", value=1)["outcome"] == "expired"


def test_a_node_that_goes_away_leaves_what_the_next_can_restart() -> None:
    """It neither starts the run again nor ends it; one that nobody may start again ends all the same."""
    session = PureSession()
    session.send("r1", agent="phoenix")
    session.send("r2", whenBusy="alongside")
    session.set(node="n2", accepting=False)
    session.work(Sweep())
    assert [(event["runId"], event["reason"]) for event in session.events("run.ended")] == [("r2", "lost")]
    session.set(node="n3", accepting=True)
    session.work(Sweep())
    assert session.last().items() >= {"runId": "r1", "attempt": 2, "node": "n3"}.items()


def test_a_run_is_left_to_a_node_that_has_its_agent() -> None:
    """Where another live node can run it, one without the agent does not end it; where none can, it is lost."""
    session = PureSession()
    session.send("r1", agent="phoenix")
    session.set(node="n2", agents={"solo": session.context.agents["solo"]}, elsewhere=frozenset({"phoenix"}))
    assert session.work(Sweep()).records == []
    session.set(elsewhere=frozenset({"solo"}))
    session.work(Sweep())
    assert session.last()["reason"] == "lost"


def test_a_run_that_nodes_die_of() -> None:
    """Three of them may: then it is lost. Those that died while it waited for an answer do not count."""
    session = PureSession()
    session.send("r1", agent="phoenix")
    for node in ("n2", "n3", "n4"):
        session.request("r1", f"q-{node}")
        session.set(node=node)
        session.work(Sweep())
        assert session.phase("r1") is RunPhase.RUNNING
    for node in ("n5", "n6"):
        session.set(node=node)
        session.work(Sweep())
        assert session.last().items() >= {"type": "run.started", "node": node}.items()
    session.set(node="n7")
    session.work(Sweep())
    assert session.last().items() >= {"type": "run.ended", "reason": "lost"}.items()
    assert session.events("run.started")[-1]["attempt"] == 6


def test_stop() -> None:
    """The server ends a run in its own name, once."""
    session = PureSession()
    session.send("r1")
    session.work(Stop("r1", "shutdown"))
    assert session.last().items() >= {"reason": "cancelled", "cause": "shutdown", "by": "holdfast"}.items()
    assert session.work(Stop("r1", "shutdown")).refused
    assert session.work(Stop("r9", "shutdown")).refused


def test_due_times_by_a_steady_clock() -> None:
    """Taken at the wall clock's word once; a step of it changes none, and a new word of the log does."""
    session = PureSession()
    session.send("r1", deadlineMs=100)
    session.request("r1", "q1", expiresAt=NOW + 10)
    session.request("r1", "q2")
    dues, times = SteadyDues(), due_times(session.state)
    assert times == {("r1", None): NOW + 100, ("r1", "q1"): NOW + 10}
    assert dues.adjusted(times, now=NOW, steady=5) == times
    back = dues.adjusted(times, now=NOW - 3_600_000, steady=9)
    assert back == {("r1", None): NOW - 3_600_000 + 96, ("r1", "q1"): NOW - 3_600_000 + 6}
    changed = dues.adjusted({("r1", "q1"): NOW + 20}, now=NOW, steady=15)
    assert changed == {("r1", "q1"): NOW + 20}
    assert dues.adjusted({}, now=NOW, steady=16) == {}
    assert dues.adjusted(times, now=NOW + 50, steady=17) == times


def test_a_decision_goes_by_the_times_it_is_given() -> None:
    """Where the wall clock was set they are not the log's: runs and requests expire by them, and answers too."""
    session = PureSession()
    session.send("r1", deadlineMs=100)
    session.request("r1", "q1", expiresAt=NOW + 10)
    session.set(now=NOW + 3_600_000, dues={("r1", None): NOW + 3_600_001, ("r1", "q1"): NOW + 3_600_001})
    assert session.work(Upkeep()).records == []
    assert due_at(session.state, None, session.context.dues) == NOW + 3_600_001
    session.set(dues={("r1", None): NOW + 3_600_001, ("r1", "q1"): NOW + 3_600_000})
    assert session.ask("answer", "a1", runId="r1", requestId="q1", value=1)["outcome"] == "expired"
    session.set(dues={("r1", None): NOW + 3_600_000})
    session.work(Upkeep())
    assert session.last()["cause"] == "deadline"
