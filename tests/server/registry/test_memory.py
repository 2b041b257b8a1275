"""Commands sent twice: what is remembered, for how long, and through checkpoints."""

from __future__ import annotations

from time import thread_time
from typing import Any

import pytest

from holdfast.protocol.commands import parse_command
from holdfast.protocol.errors import CommandError
from holdfast.server.registry import Ask, Memory, keys
from holdfast.server.registry.commands import digest_of
from holdfast.server.registry.state import MEMORIES_KEPT, MEMORY_KEPT_MS
from tests.support.pure_session import NOW, PureSession, command

ADDING: list[tuple[str, dict[str, Any]]] = [
    ("send", {"text": "x"}),
    ("send", {"text": "x", "whenBusy": "interrupt"}),
    ("send", {"text": "x", "whenBusy": "steer"}),
    ("cancel", {"runId": "r1"}),
    ("cancel", {"runId": "r9", "ifUnknown": "prevent"}),
    ("cancel", {"scope": "session", "upTo": {"epoch": "e1", "seq": 2}}),
    ("steer", {"text": "x"}),
    ("steer", {"text": "x", "ifEnded": "send"}),
    ("withdraw", {"steerId": "s1"}),
    ("answer", {"runId": "r1", "requestId": "q1", "value": 1}),
]


def prepared() -> PureSession:
    """A session with a run that has a steer and a request."""
    session = PureSession()
    session.send("r1")
    session.ask("steer", "s1", text="x")
    session.request("r1", "q1")
    return session


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize(("kind", "fields"), ADDING)
def test_the_same_again(kind: str, fields: dict[str, Any], *, reopened: bool) -> None:
    """A command that added events, sent again, gets the same reply and adds nothing, also by another process."""
    session = prepared()
    ack = session.ask(kind, "k1", **fields)
    if reopened:
        session.compact()
        session.reopen()
    count = len(session.records)
    assert session.ask(kind, "k1", **fields, trace=f"00-{'a' * 32}-{'b' * 16}-01") == {**ack, "duplicate": True}
    assert len(session.records) == count
    with pytest.raises(CommandError, match="another command of yours has had this id") as caught:
        session.ask("cancel", "k1", runId="r77")
    assert (caught.value.code, caught.value.path) == ("conflict", "$.id")


def test_seen_is_not_compared() -> None:
    """A repeat may know more than the first try."""
    session = prepared()
    session.ask("cancel", "k1", runId="r1")
    assert session.ask("cancel", "k1", runId="r1", seen={"epoch": "e1", "seq": 1})["duplicate"]


def test_principals_are_apart() -> None:
    """A command id belongs to its principal, whatever device it comes from."""
    session = prepared()
    session.ask("cancel", "k1", runId="r9", ifUnknown="prevent")
    again = session.ask("cancel", "k1", runId="r9", ifUnknown="prevent", client="ana/laptop")
    assert again.get("duplicate")
    assert "duplicate" not in session.ask("cancel", "k1", runId="r8", ifUnknown="prevent", client="bo/phone")


def test_what_adds_nothing_is_decided_afresh() -> None:
    """A reply that added nothing may be another one the next time."""
    session = PureSession()
    assert session.ask("cancel", "k1", runId="r1")["outcome"] == "unknown_run"
    session.send("r1")
    assert session.ask("cancel", "k1", runId="r1")["outcome"] == "cancelled"


@pytest.mark.parametrize("sent", [{}, {"ifEnded": "send"}])
def test_how_long(sent: dict[str, str]) -> None:
    """Sends, and steers that may be sent, are remembered for ever; the rest for a while and a thousand commands."""
    session = PureSession()
    session.careful = False
    session.send("r1")
    steered = session.ask("steer", "s1", text="x", **sent)
    session.ask("cancel", "k1", runId="r9", ifUnknown="prevent")
    session.finish("r1")
    for reopened in (False, True):
        session.set(now=session.context.now + MEMORY_KEPT_MS + 1)
        session.compact()
        if reopened:
            session.reopen()
        for number in range(MEMORIES_KEPT + 1):
            session.ask("cancel", f"k-{reopened}-{number}", runId=f"p-{reopened}-{number}", ifUnknown="prevent")
    assert ("ana", "k1") not in session.state.memories
    assert ("ana", "r1") not in session.state.memories
    assert len(session.state.memories) <= 2 * MEMORIES_KEPT + 2
    count = len(session.records)
    assert session.send("r1").get("duplicate")
    if sent:
        assert session.ask("steer", "s1", text="x", **sent) == {**steered, "duplicate": True}
    else:
        with pytest.raises(CommandError, match="another run's or steer's"):
            session.ask("steer", "s1", text="x")
    assert session.ask("cancel", "k1", runId="r9", ifUnknown="prevent")["outcome"] == "already_ended"
    assert len(session.records) == count


def test_young_ones_are_kept_however_many() -> None:
    """Within the time, more than a thousand are remembered."""
    session = PureSession()
    session.careful = False
    for number in range(MEMORIES_KEPT + 50):
        session.ask("cancel", f"k{number}", runId=f"p{number}", ifUnknown="prevent")
    assert len(session.state.memories) == MEMORIES_KEPT + 50
    session.set(now=NOW + MEMORY_KEPT_MS + 1)
    session.ask("cancel", "last", runId="p", ifUnknown="prevent")
    assert len(session.state.memories) == MEMORIES_KEPT


def test_every_field_counts() -> None:
    """Commands that differ in any field but `seen` and `trace` have different digests, null values included."""
    commands: list[dict[str, Any]] = [
        {"type": "send", "text": "x"},
        {"type": "send", "text": "y"},
        {"type": "send", "text": "x", "metadata": {}},
        {"type": "send", "text": "x", "metadata": {"a": None}},
        {"type": "send", "text": "x", "deadlineMs": 5},
        {"type": "answer", "runId": "r", "requestId": "q", "value": None},
        {"type": "answer", "runId": "r", "requestId": "q", "value": [None]},
        {"type": "answer", "runId": "r", "requestId": "q", "value": []},
        {"type": "cancel", "scope": "session", "upTo": {"epoch": "e", "seq": 1}},
        {"type": "cancel", "scope": "session", "upTo": {"epoch": "e", "seq": 2}},
    ]
    digests: set[str] = set()
    for fields in commands:
        ask: Any = parse_command({"id": "k", **fields})
        digests.add(digest_of(Ask("ana", "phone", ask)))
    assert len(digests) == len(commands)


def test_very_many_young_ones_go_to_the_archive() -> None:
    """A checkpoint carries a thousand and no lasting ones; the others are found for ten minutes all the same."""
    session = PureSession()
    session.careful = False
    session.send("r1")
    cancels: list[dict[str, Any]] = []
    for number in range(MEMORIES_KEPT + 50):
        session.set(now=NOW + number)
        cancels.append(session.ask("cancel", f"k{number}", runId=f"p{number}", ifUnknown="prevent"))
    session.compact()
    session.reopen()
    assert len(session.checkpoint["memories"]) == len(session.state.memories) == MEMORIES_KEPT
    count = len(session.records)
    for number in (0, 49, 50, MEMORIES_KEPT + 49):
        again = session.ask("cancel", f"k{number}", runId=f"p{number}", ifUnknown="prevent")
        assert again == {**cancels[number], "duplicate": True}
    with pytest.raises(CommandError, match="another command of yours has had this id"):
        session.ask("cancel", "k0", runId="r1")
    assert len(session.records) == count


def test_the_archive_is_not_asked_for_what_was_let_go() -> None:
    """Ten minutes after the last command that went there for want of room, and where none ever did."""
    session = PureSession()
    session.careful = False
    ask = Ask("ana", "phone", command("cancel", "new", runId="r1"))
    session.send("r0")
    session.finish("r0")
    session.send("r1")
    session.compact()
    assert keys(session.state, ask) == []
    for number in range(MEMORIES_KEPT + 1):
        session.ask("cancel", f"k{number}", runId=f"p{number}", ifUnknown="prevent")
    session.compact()
    assert keys(session.state, ask) == ["command:new ana"]
    session.set(now=NOW + MEMORY_KEPT_MS + 1)
    session.say("r1", "later")
    assert keys(session.state, ask) == []
    session.ask("cancel", "k-late", runId="p-late", ifUnknown="prevent")
    session.compact()
    assert "command:k1 ana" not in session.archive.records, "it was old enough to be let go"


def memory_of(command_id: str, at: int) -> Memory:
    """What is remembered of a command that is no send."""
    reply: Any = {"type": "ack", "id": command_id, "outcome": "cancelled"}
    return {"principal": "ana", "id": command_id, "digest": "", "reply": reply, "at": at, "lasting": False}


def test_remembering_costs_the_same_however_many_are_remembered() -> None:
    """A client that sends command after command within ten minutes does not slow the session down."""
    state = PureSession().state
    began = thread_time()
    for number in range(30_000):
        state.remember(memory_of(f"k{number}", NOW))
    for number in range(30_000):
        state.remember(memory_of(f"l{number}", NOW + MEMORY_KEPT_MS + 1 + number))
    assert thread_time() - began < 1.0
    assert len(state.memories) == 30_000, "as many as were sent within the last ten minutes"
