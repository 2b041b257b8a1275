"""Deciding `cancel`: every step of its decision, and what is kept of a stopped run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.server.registry import Chunk, RunPhase
from holdfast.server.registry.state import BOUNDARIES_KEPT
from tests.support.pure_session import PureSession


def test_running() -> None:
    """A run that goes on is ended, and waits for its work to stop."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "x")
    ack = session.ask("cancel", "k1", runId="r1", client="bo/tablet")
    assert ack == {"type": "ack", "id": "k1", "outcome": "cancelled", "runId": "r1", "seq": 4}
    ended = session.last()
    assert (ended["cause"], ended["by"], ended["device"], ended["command"]) == ("user", "bo", "tablet", "k1")
    assert "kept" not in ended
    assert "seen" not in ended
    assert session.say("r1", "y").refused
    assert session.settle("r1").records
    assert session.settle("r1").refused


def test_queued() -> None:
    """A queued run leaves the queue, and nothing of it is kept or settled."""
    session = PureSession()
    session.send("r1")
    session.send("r2")
    session.ask("cancel", "k1", runId="r2", seen={"epoch": "e1", "seq": 3})
    assert session.state.queue == []
    assert not {"kept", "seen"} & set(session.last())
    assert session.settle("r2").refused


def test_promotes() -> None:
    """What waited behind the stopped run starts in the same step, and its message follows it."""
    session = PureSession()
    session.send("r1")
    session.send("r2")
    ack = session.ask("cancel", "k1", runId="r1")
    assert [event["type"] for event in session.events()[-3:]] == ["run.ended", "message", "run.started"]
    assert ack["seq"] == session.last()["seq"]
    assert session.last()["command"] == "r2"


def test_ended() -> None:
    """An ended run is an outcome, with its terminal: from the state, and from the archive."""
    session = PureSession()
    session.send("r1")
    session.finish("r1", "failed", error={"code": "agent", "message": "oh"})
    expected = {"outcome": "already_ended", "runId": "r1", "reason": "failed", "seq": 3}
    assert session.ask("cancel", "k1", runId="r1").items() >= expected.items()
    session.compact()
    assert session.ask("cancel", "k2", runId="r1").items() >= expected.items()


def test_steers() -> None:
    """The id of a steer stops the steer where it can still be stopped, and says where it went otherwise."""
    session = PureSession()
    session.send("r1")
    session.ask("steer", "s1", text="x", ifEnded="send")
    session.ask("steer", "s2", text="y")
    assert session.ask("cancel", "k1", runId="s1").items() >= {"outcome": "withdrawn", "runId": "r1", "seq": 5}.items()
    assert session.take("r1") == ["s2"]
    assert session.ask("cancel", "k2", runId="s2").items() >= {"outcome": "steered", "runId": "r1"}.items()
    assert session.ask("cancel", "k3", runId="s1") == {
        "type": "ack", "id": "k3", "outcome": "withdrawn", "runId": "r1",
    }  # fmt: skip
    session.ask("steer", "s3", text="z")
    session.finish("r1")
    assert session.ask("cancel", "k4", runId="s3")["outcome"] == "withdrawn"
    session.compact()
    fates = {number: session.ask("cancel", f"k{number}", runId=f"s{number - 4}")["outcome"] for number in (5, 6, 7)}
    assert fates == {5: "withdrawn", 6: "steered", 7: "withdrawn"}


def test_unknown() -> None:
    """An unknown run is an outcome; with `prevent` it is entered as ended, and that is remembered."""
    session = PureSession()
    assert session.ask("cancel", "k1", runId="r1") == {
        "type": "ack", "id": "k1", "outcome": "unknown_run", "runId": "r1",
    }  # fmt: skip
    ack = session.ask("cancel", "k2", runId="r1", ifUnknown="prevent")
    assert ack.items() >= {"outcome": "cancelled", "runId": "r1", "seq": 1}.items()
    assert session.last()["cause"] == "prevented"
    assert session.ask("cancel", "k3", runId="r1")["outcome"] == "already_ended"


def test_scope() -> None:
    """Everything that was there at the position ends in one step, queued runs first; the rest goes on."""
    session = PureSession()
    session.send("r1")
    session.send("r2", whenBusy="alongside")
    session.send("r3")
    session.send("r4")
    up_to = session.state.seq
    session.send("r5")
    ack = session.ask("cancel", "k1", scope="session", upTo={"epoch": "e1", "seq": up_to})
    assert ack["runIds"] == ["r3", "r4", "r1", "r2"]
    assert [event["runId"] for event in session.events("run.ended")] == ack["runIds"]
    assert session.last()["type"] == "run.started"
    assert session.main() == "r5"
    again = session.ask("cancel", "k2", scope="session", upTo={"epoch": "e1", "seq": up_to})
    assert again == {"type": "ack", "id": "k2", "outcome": "cancelled", "runIds": []}


def test_scope_of_another_epoch() -> None:
    """A position of another log stops nothing."""
    session = PureSession()
    session.send("r1")
    assert session.ask("cancel", "k1", scope="session", upTo={"epoch": "e9", "seq": 99})["runIds"] == []
    assert session.main() == "r1"


def test_kept_counts_code_points() -> None:
    """A cut counts code points, keeps what happened, and leaves out what was not seen at all."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "Hm.", "reasoning")
    session.say("r1", "Olá 👋")
    session.work(Chunk.of(session.owner("r1"), "tool_call", {"callId": "c1", "name": "f", "input": {}, "done": True}))
    seen = session.state.seq
    session.say("r1", ", Lisbon 😀")
    ack = session.ask("cancel", "k1", runId="r1", seen={"epoch": "e1", "seq": seen})
    assert ack["outcome"] == "cancelled"
    assert session.last()["kept"] == [{"part": 0, "length": 3}, {"part": 1, "length": 5}]
    assert session.texts("r1") == ["Hm.", "Olá 👋"]


def test_a_scope_beyond_the_head() -> None:
    """A position that the log never reached is of another log: it ends nothing, now or when the log has come so far."""
    session = PureSession()
    session.send("r1")
    beyond = session.state.seq + 1
    for command in ("k1", "k2"):
        up_to = {"epoch": "e1", "seq": beyond}
        assert session.ask("cancel", command, scope="session", upTo=up_to)["runIds"] == []
    assert session.phase("r1") is RunPhase.RUNNING


def test_seen_beyond_the_head() -> None:
    """It is the head: nothing is cut, and the event says what was taken for seen."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "x")
    session.ask("cancel", "k1", runId="r1", seen={"epoch": "e1", "seq": 99})
    assert (session.last()["seen"], session.last()["kept"]) == (
        {"epoch": "e1", "seq": 3}, [{"part": 0, "length": 1}],
    )  # fmt: skip


def test_nothing_seen() -> None:
    """Whoever saw nothing keeps nothing."""
    session = PureSession()
    session.send("r1")
    session.say("r1", "x")
    session.ask("cancel", "k1", runId="r1", seen={"epoch": "e1", "seq": 0})
    assert session.last()["kept"] == []
    assert session.texts("r1") == []


def test_oldest_boundary() -> None:
    """An older `seen` than the boundaries that are kept cuts at the oldest of them."""
    session = PureSession()
    session.send("r1")
    for _ in range(BOUNDARIES_KEPT + 10):
        session.say("r1", "x")
    session.ask("cancel", "k1", runId="r1", seen={"epoch": "e1", "seq": 3})
    assert session.last()["kept"] == [{"part": 0, "length": 10}]


pieces = st.lists(st.tuples(st.sampled_from(["text", "reasoning"]), st.text(max_size=3)), max_size=12)


@given(pieces=pieces, seen=st.integers(0, 16), reopened=st.booleans())
def test_kept_is_what_was_seen(pieces: list[tuple[str, str]], seen: int, *, reopened: bool) -> None:
    """Whatever was said and wherever the reader stood, the text that is left is what stood there."""
    session = PureSession()
    session.send("r1")
    said: list[list[str]] = []
    last = ""
    for kind, text in pieces:
        text = text.encode("utf-8", "replace").decode()
        session.say("r1", text, kind)
        if kind != last:
            said.append([])
        last = kind
        said[-1].append(text if session.state.seq <= seen else "")
    if reopened:
        session.compact()
        session.reopen()
    session.ask("cancel", "k1", runId="r1", seen={"epoch": "e1", "seq": seen})
    assert session.texts("r1") == [text for text in map("".join, said) if text]
