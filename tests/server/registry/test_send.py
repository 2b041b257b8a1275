"""Deciding `send`: every step of its decision, and what it adds."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.protocol.errors import CommandError
from holdfast.protocol.values import EVENT_BYTES
from holdfast.server.registry import Finish, RunLimits
from tests.support.pure_session import NOW, PureSession


def refused(session: PureSession, kind: str, command_id: str, **fields: Any) -> CommandError:
    """The error that a command is refused with."""
    with pytest.raises(CommandError) as caught:
        session.ask(kind, command_id, **fields)
    return caught.value


def test_starts() -> None:
    """An idle session starts the run at once: its message, and its start right behind it."""
    session = PureSession()
    assert session.send("r1", metadata={"a": 1}) == {
        "type": "ack", "id": "r1", "outcome": "started", "runId": "r1", "seq": 2,
    }  # fmt: skip
    message, started = session.events()
    parts = [{"kind": "text", "text": "do r1"}]
    assert message == {
        "type": "message", "seq": 1, "at": NOW, "command": "r1", "runId": "r1", "after": None,
        "message": {
            "id": "u~r1", "role": "user", "parts": parts, "by": "ana", "device": "phone", "at": NOW,
            "metadata": {"a": 1},
        },
    }  # fmt: skip
    assert started == {
        "type": "run.started", "seq": 2, "at": NOW, "command": "r1", "runId": "r1", "agent": "solo", "by": "ana",
        "device": "phone", "messageId": "a~r1", "after": "u~r1", "attempt": 1, "node": "n1",
    }  # fmt: skip
    assert session.state.runs["r1"].terms == {"alongside": False, "acceptedAt": NOW, "metadata": {"a": 1}}


def test_names_of_its_own() -> None:
    """Run and message may be named by the sender; long run ids still make message ids of legal length."""
    session = PureSession()
    assert session.ask("send", "k", text="x", runId="r1", messageId="m1")["runId"] == "r1"
    assert session.last()["after"] == "m1"
    session.finish("r1")
    session.send("r" * 128)
    assert session.last()["messageId"].startswith("a~")
    assert len(session.last()["messageId"]) <= 128


def test_time_never_goes_back() -> None:
    """A node whose clock is behind writes the time of the head."""
    session = PureSession()
    session.send("r1")
    session.set(now=NOW - 500)
    session.say("r1", "x")
    assert session.last()["at"] == NOW


def test_used_ids() -> None:
    """A run's or steer's id is taken for good; the path names the field that brought it."""
    session = PureSession()
    session.send("r1")
    session.ask("steer", "s1", text="x")
    for used in ("r1", "s1"):
        error = refused(session, "send", "k1", text="x", runId=used)
        assert (error.code, error.path) == ("conflict", "$.runId")
        error = refused(session, "send", used, text="x", client="bo/tablet")
        assert (error.code, error.path) == ("conflict", "$.id")


def test_used_message_ids() -> None:
    """A message id is used once, also by a message that still waits in the queue; the server's own are its own."""
    session = PureSession()
    session.send("r1", messageId="m1")
    session.send("r2", messageId="m2")
    for used in ("m1", "m2"):
        error = refused(session, "send", "r3", text="x", messageId=used)
        assert (error.code, error.path) == ("conflict", "$.messageId")
    for reserved in ("a~r9", "u~r9"):
        error = refused(session, "send", "r3", text="x", messageId=reserved)
        assert (error.code, error.path) == ("invalid", "$.messageId")


def test_too_large() -> None:
    """What would not fit into one event is refused where it stands."""
    session = PureSession()
    error = refused(session, "send", "r1", text="x" * EVENT_BYTES)
    assert (error.code, error.path) == ("too_large", "$.text")
    error = refused(session, "send", "r1", parts=[{"kind": "text", "text": "x" * EVENT_BYTES}])
    assert (error.code, error.path) == ("too_large", "$.parts")
    assert refused(session, "send", "r1", text="x", metadata={"a": "x" * EVENT_BYTES}).code == "too_large"


def test_agents() -> None:
    """The first registered agent is the default; an unknown one is named back with those there are."""
    session = PureSession()
    session.send("r1", agent="phoenix")
    assert session.last()["agent"] == "phoenix"
    error = refused(session, "send", "r2", text="x", agent="nobody")
    assert (error.code, error.path, error.message) == (
        "unknown_agent", "$.agent", "there is no agent 'nobody'; there are: solo, phoenix",
    )  # fmt: skip
    session.set(agents={})
    assert refused(session, "send", "r2", text="x").message == "the server has no agent; there are: none"


def test_draining() -> None:
    """A server that goes down starts nothing, and says that another try may succeed."""
    session = PureSession(accepting=False)
    error = refused(session, "send", "r1", text="x")
    assert (error.code, error.retryable) == ("draining", True)


def test_queue() -> None:
    """Runs wait their turn, in order, and start when the main run ends, with the command that sent them."""
    session = PureSession(limits=RunLimits(queued=2))
    session.send("r1")
    assert [session.send("r2")["position"], session.send("r3")["position"]] == [1, 2]
    assert refused(session, "send", "r4", text="x").code == "limit_reached"
    session.finish("r1")
    ended, message, started = session.events()[-3:]
    assert (ended["type"], ended["reason"]) == ("run.ended", "completed")
    assert (message["command"], message["after"]) == ("r2", "a~r1")
    assert (started["command"], started["runId"], started["after"]) == ("r2", "r2", "u~r2")
    assert session.state.queue == ["r3"]


def test_queue_behind_a_queue() -> None:
    """A session without a main run whose queue nobody could take yet is still not overtaken by `queue`."""
    session = PureSession()
    session.send("r1")
    session.send("r2")
    session.set(accepting=False)
    session.finish("r1")
    assert (session.state.main, session.state.queue) == (None, ["r2"])
    session.set(accepting=True)
    assert session.send("r3")["outcome"] == "queued"
    assert session.send("r4", whenBusy="reject")["outcome"] == "started"


def test_interrupt() -> None:
    """The main run ends, cut to what was seen, and the new one starts, in one step; the queue stays behind it."""
    session = PureSession()
    session.send("r1")
    session.send("r2")
    session.say("r1", "one ")
    session.say("r1", "two")
    ack = session.send("r3", whenBusy="interrupt", seen={"epoch": "e1", "seq": 4})
    ended, message, started = session.events()[-3:]
    assert (ended["runId"], ended["reason"], ended["cause"], ended["by"]) == ("r1", "cancelled", "superseded", "ana")
    assert ended["kept"] == [{"part": 0, "length": 4}]
    assert (message["runId"], started["runId"], ack["seq"]) == ("r3", "r3", started["seq"])
    assert (session.state.main, session.state.queue) == ("r3", ["r2"])
    assert session.texts("r1") == ["one "]
    idle = PureSession()
    assert idle.send("r1", whenBusy="interrupt")["outcome"] == "started"


def test_alongside() -> None:
    """Runs beside the main one do not make the session busy, and have a limit of their own."""
    session = PureSession(limits=RunLimits(alongside=1))
    assert session.send("r1", whenBusy="alongside")["outcome"] == "started"
    assert session.main() is None
    assert refused(session, "send", "r2", text="x", whenBusy="alongside").code == "limit_reached"
    assert session.send("r3", whenBusy="reject")["outcome"] == "started"
    session.finish("r1")
    assert session.main() == "r3"
    assert session.send("r4", whenBusy="alongside")["outcome"] == "started"


def test_reject() -> None:
    """A sender who would rather not wait is told so."""
    session = PureSession()
    session.send("r1")
    assert refused(session, "send", "r2", text="x", whenBusy="reject").code == "busy"


def test_steer() -> None:
    """A send may go into the main run; its run id is then a steer's. Without a main run it starts."""
    session = PureSession()
    assert session.send("r1", whenBusy="steer")["outcome"] == "started"
    assert session.ask("send", "k", text="x", runId="r2", whenBusy="steer") == {
        "type": "ack", "id": "k", "outcome": "steered", "runId": "r1", "seq": 3,
    }  # fmt: skip
    event = session.last()
    assert (event["type"], event["steerId"], event["boundary"], event["ifEnded"]) == (
        "steer.accepted", "r2", "now", "send",
    )  # fmt: skip
    session.finish("r1")
    started = session.last()
    assert (started["type"], started["runId"], started["command"]) == ("run.started", "r2", "k")


def test_prevented() -> None:
    """A run that was stopped before it was sent never starts, however often it is sent, also from the archive."""
    session = PureSession()
    session.ask("cancel", "k1", runId="r1", ifUnknown="prevent")
    expected = {"type": "ack", "id": "r1", "outcome": "ended", "runId": "r1", "reason": "cancelled", "seq": 1}
    assert session.send("r1") == {**expected, "cause": "prevented"}
    session.compact()
    assert session.send("r1") == {**expected, "cause": "prevented"}
    assert len(session.records) == 1


def test_archived_ids() -> None:
    """Ids of runs, steers and messages that left the state are still taken."""
    session = PureSession()
    session.send("r1", messageId="m1")
    session.ask("steer", "s1", text="x")
    session.work(Finish(session.owner("r1"), "completed"))
    session.compact()
    session.reopen()
    for used in ("r1", "s1"):
        assert refused(session, "send", "k2", text="x", runId=used).code == "conflict"
    assert refused(session, "send", "r2", text="x", messageId="m1").code == "conflict"
    assert session.send("r2", messageId="m2")["outcome"] == "started"


def test_terms() -> None:
    """What a run was accepted under is kept beside its start."""
    session = PureSession()
    session.send("r1", deadlineMs=500, whenAbandoned={"cancelAfterMs": 20})
    terms = session.state.runs["r1"].terms
    assert terms == {"alongside": False, "acceptedAt": NOW, "deadlineAt": NOW + 500, "abandonMs": 20}
