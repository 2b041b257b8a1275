"""Deciding `steer` and `withdraw`: every step, and what becomes of each steer."""

from __future__ import annotations

import pytest

from holdfast.protocol.errors import CommandError
from holdfast.protocol.values import EVENT_BYTES
from holdfast.server.registry import RunLimits, RunPhase, Upkeep
from holdfast.server.registry.state import SteerStatus
from tests.server.registry.test_send import refused
from tests.support.pure_session import NOW, PureSession


def test_accepted() -> None:
    """A steer of the main run, or of one by name, belongs to the log, with all that it came with."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "one")
    ack = session.ask("steer", "s1", text="rather", seen={"epoch": "e1", "seq": 3}, client="bo/tablet")
    assert ack == {"type": "ack", "id": "s1", "outcome": "accepted", "runId": "r1", "seq": 4}
    assert session.last().items() >= {
        "steerId": "s1", "boundary": "now", "ifEnded": "return", "by": "bo", "device": "tablet",
        "seen": {"epoch": "e1", "seq": 3}, "parts": [{"kind": "text", "text": "rather"}],
    }.items()  # fmt: skip
    session.ask("steer", "s2", runId="r1", parts=[{"kind": "file", "url": "u", "mediaType": "t"}], boundary="step")
    assert session.last()["boundary"] == "step"
    assert "seen" not in session.last()


def test_seen_of_another_epoch() -> None:
    """It is ignored."""
    session = PureSession()
    session.send("r1")
    session.ask("steer", "s1", text="x", seen={"epoch": "e9", "seq": 3})
    assert "seen" not in session.last()


def test_taken_in_order() -> None:
    """The agent gets all pending steers in their order; each cuts what its sender had not seen, and none is twice."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "one ")
    session.say("r1", "two ")
    session.ask("steer", "s1", text="x", seen={"epoch": "e1", "seq": 3})
    session.ask("steer", "s2", text="y")
    session.say("r1", "three")
    assert session.take("r1") == ["s1", "s2"]
    assert session.events("steer.applied")[0]["kept"] == [{"part": 0, "length": 4}]
    assert "kept" not in session.events("steer.applied")[1]
    assert session.take("r1") == []
    session.say("r1", "four")
    assert session.texts("r1") == ["one ", "four"]


def test_steer_of_a_queued_run() -> None:
    """It waits with the run, and is taken when the run goes on."""
    session = PureSession()
    session.send("r1")
    session.send("r2")
    assert session.ask("steer", "s1", runId="r2", text="x")["outcome"] == "accepted"
    session.finish("r1")
    assert session.take("r2") == ["s1"]


def test_refused() -> None:
    """A used id, a steer too large, and too many that wait are errors."""
    session = PureSession(limits=RunLimits(steers=2))
    session.send("r1")
    assert refused(session, "steer", "r1", text="x", client="bo/tablet").path == "$.id"
    assert refused(session, "steer", "s1", text="x" * EVENT_BYTES).path == "$.text"
    parts = [{"kind": "text", "text": "x" * EVENT_BYTES}]
    assert refused(session, "steer", "s1", parts=parts).path == "$.parts"
    room = session.context.limits.steers_bytes - 100
    assert refused(session, "steer", "s1", text="x" * (room + 100)).code == "too_large"
    assert refused(session, "send", "s1", text="x" * (room + 100), whenBusy="steer").path == "$.text"
    assert refused(session, "steer", "s1", parts=[{"kind": "text", "text": "x" * (room + 100)}]).path == "$.parts"
    session.ask("steer", "s1", text="x")
    assert refused(session, "steer", "s2", text="x" * room).code == "limit_reached"
    session.ask("steer", "s2", text="x")
    assert refused(session, "steer", "s3", text="x").code == "limit_reached"
    session.take("r1")
    assert session.ask("steer", "s3", text="x")["outcome"] == "accepted"


def test_waiting_steers_fit_into_one_terminal() -> None:
    """However large, all steers that wait can go back in one event."""
    session = PureSession()
    session.send("r1")
    session.ask("steer", "s1", text="x" * (EVENT_BYTES // 2))
    with pytest.raises(CommandError, match="too many steers"):
        session.ask("steer", "s2", text="x" * (EVENT_BYTES // 2))
    session.ask("steer", "s3", text="small")
    session.ask("cancel", "k1", runId="r1")
    assert [steer["steerId"] for steer in session.last()["returned"]] == ["s1", "s3"]


def test_no_main_run() -> None:
    """There is nothing to steer: an outcome, or the next message."""
    session = PureSession()
    assert session.ask("steer", "s1", text="x") == {"type": "ack", "id": "s1", "outcome": "unknown_run"}
    assert session.ask("steer", "s1", runId="r9", text="x", ifEnded="send")["outcome"] == "unknown_run"
    ack = session.ask("steer", "s1", text="x", ifEnded="send")
    assert ack == {"type": "ack", "id": "s1", "outcome": "sent", "runId": "s1", "seq": 2}
    assert session.main() == "s1"


def test_ended() -> None:
    """The run has ended: an outcome with its terminal, from the state and from the archive."""
    session = PureSession()
    session.send("r1")
    session.finish("r1")
    expected = {"outcome": "already_ended", "runId": "r1", "reason": "completed", "seq": 3}
    assert session.ask("steer", "s1", runId="r1", text="x").items() >= expected.items()
    session.compact()
    assert session.ask("steer", "s1", runId="r1", text="x").items() >= expected.items()


def test_sent_when_ended() -> None:
    """With `send` it becomes the next message, for the same agent, ahead of the queue; so also from the archive."""
    session = PureSession()
    session.send("r1", agent="phoenix")
    session.finish("r1")
    session.send("r2")
    session.send("r3")
    assert session.ask("steer", "s1", runId="r1", text="x", ifEnded="send")["outcome"] == "sent"
    assert (session.last()["type"], session.last()["agent"]) == ("run.queued", "phoenix")
    session.compact()
    assert session.ask("steer", "s2", runId="r1", text="x", ifEnded="send")["runId"] == "s2"
    assert session.last()["agent"] == "phoenix"
    assert session.state.queue == ["s2", "s1", "r3"]


def test_cannot_be_sent() -> None:
    """What refuses a send refuses a steer that would be one."""
    session = PureSession(limits=RunLimits(queued=0))
    session.send("r1")
    session.finish("r1")
    session.set(accepting=False)
    assert refused(session, "steer", "s1", text="x", ifEnded="send").code == "draining"
    session.set(accepting=True)
    session.send("r2")
    assert refused(session, "steer", "s1", runId="r1", text="x", ifEnded="send").code == "limit_reached"
    session.set(agents={})
    assert refused(session, "steer", "s1", runId="r1", text="x", ifEnded="send").code == "unknown_agent"


@pytest.mark.parametrize("reason", ["completed", "failed"])
def test_left_over(reason: str) -> None:
    """A run that ends by itself hands back or sends on what it never took: in order, ahead of the queue."""
    session = PureSession()
    session.send("r1")
    session.send("r2")
    for number, ended in enumerate(("send", "return", "send"), start=1):
        session.ask("steer", f"s{number}", text=str(number), ifEnded=ended)
    session.finish("r1", reason)
    names = [(event["type"], event["runId"]) for event in session.events()[-5:]]
    assert names == [
        ("run.ended", "r1"), ("run.queued", "s1"), ("run.queued", "s3"), ("message", "s1"), ("run.started", "s1"),
    ]  # fmt: skip
    ended_event = session.events("run.ended")[0]
    assert ended_event["returned"] == [{"steerId": "s2", "parts": [{"kind": "text", "text": "2"}]}]
    assert session.state.queue == ["s3", "r2"]
    assert session.last()["command"] == "s1"
    assert {key: steer.status for key, steer in session.state.steers.items()} == {
        "s1": SteerStatus.SENT, "s2": SteerStatus.RETURNED, "s3": SteerStatus.SENT,
    }  # fmt: skip


def test_a_stop_never_starts_a_run() -> None:
    """The steers of a run that is stopped go back, also those that would be sent."""
    session = PureSession()
    session.send("r1")
    session.ask("steer", "s1", text="x", ifEnded="send")
    session.ask("cancel", "k1", runId="r1")
    assert [steer["steerId"] for steer in session.last()["returned"]] == ["s1"]
    assert session.main() is None


def test_withdraw() -> None:
    """Each fate has its reply, from the state and from the archive."""
    session = PureSession()
    session.send("r1")
    for number in (1, 2, 3):
        session.ask("steer", f"s{number}", text="x", ifEnded="send" if number == 3 else "return")
    assert session.ask("withdraw", "w0", steerId="s9")["outcome"] == "unknown_steer"
    assert session.ask("withdraw", "w1", steerId="s1").items() >= {"outcome": "withdrawn", "seq": 6}.items()
    assert session.ask("withdraw", "w2", steerId="s1") == {
        "type": "ack", "id": "w2", "outcome": "withdrawn", "runId": "r1",
    }  # fmt: skip
    session.ask("withdraw", "w3", steerId="s2")
    session.ask("steer", "s4", text="x")
    session.ask("steer", "s5", text="x")
    session.ask("withdraw", "w4", steerId="s3")
    assert session.take("r1") == ["s4", "s5"]
    assert session.ask("withdraw", "w5", steerId="s4")["outcome"] == "already_applied"
    session.ask("steer", "s6", text="x")
    session.ask("steer", "s7", text="x", ifEnded="send")
    session.finish("r1")
    seq = session.events("run.ended")[0]["seq"]
    expected = {"outcome": "already_ended", "runId": "r1", "reason": "completed", "seq": seq}
    for steer_id in ("s6", "s7"):
        assert session.ask("withdraw", "w6", steerId=steer_id).items() >= expected.items()
    session.compact()
    for steer_id in ("s6", "s7"):  # s7 goes on as a run; the run that it was meant for is in the archive
        assert session.ask("withdraw", "w7", steerId=steer_id).items() >= expected.items()
    session.reopen()
    assert session.ask("withdraw", "w8", steerId="s7").items() >= expected.items()
    assert session.ask("withdraw", "w9", steerId="s4")["outcome"] == "already_applied"


def test_sent_and_archived_before_its_run_has_settled() -> None:
    """The run that a steer became may be long over while the agent it was meant for still ignores its stop."""
    session = PureSession()
    session.send("r1", deadlineMs=10)
    session.ask("steer", "s1", text="x", ifEnded="send")
    session.set(now=NOW + 10)
    session.work(Upkeep())
    assert session.main() == "s1"
    session.finish("s1")
    seq = session.last()["seq"]
    session.compact()
    assert session.phase("r1") is RunPhase.STOPPING
    ended = {"outcome": "already_ended", "runId": "s1", "reason": "completed", "seq": seq}
    for _ in range(2):
        assert session.ask("cancel", "k1", runId="s1").items() >= ended.items()
        assert session.ask("cancel", "k2", runId="s1", ifUnknown="prevent").items() >= ended.items()
        assert session.ask("answer", "k3", runId="s1", requestId="q", value=1).items() >= ended.items()
        assert session.ask("steer", "k4", runId="s1", text="x").items() >= ended.items()
        session.reopen()
    assert session.ask("withdraw", "k5", steerId="s1")["runId"] == "r1"
    assert refused(session, "send", "s1", text="y", client="bo/tablet").code == "conflict"
    session.archive.records.clear()
    assert session.ask("cancel", "k6", runId="s1")["outcome"] == "unknown_run", "it was sent, and never withdrawn"
