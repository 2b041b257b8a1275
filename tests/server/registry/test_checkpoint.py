"""Checkpoints and the archive: a state that was compacted and loaded behaves as if it had never been."""

from __future__ import annotations

from typing import Any

import orjson

from holdfast.server.registry import Chunk, Sweep, closed_runs, compact, compacted, keys, load
from holdfast.server.registry.work import Ask
from tests.support.memory_log import through_json
from tests.support.pure_session import NOW, PureSession, command, dump


def eventful() -> PureSession:
    """A session with something of everything."""
    session = PureSession()
    session.send("r1", messageId="m1")
    session.finish("r1")
    session.send("r2", agent="phoenix", metadata={"a": [1, None]})
    session.send("r3", deadlineMs=500)
    session.send("r4", whenBusy="alongside")
    session.say("r4", "side")
    session.say("r2", "Olá 👋", "reasoning")
    session.work(Chunk.of(session.owner("r2"), "tool_call", {"callId": "c", "name": "f", "delta": "{"}))
    session.say("r2", "one", done=True)
    session.say("r2", "two")
    session.request("r2", "q1")
    session.request("r2", "q2")
    session.ask("answer", "k1", runId="r2", requestId="q1", value=1)
    session.ask("steer", "s1", text="x")
    session.take("r2")
    session.ask("steer", "s2", text="y", seen={"epoch": "e1", "seq": 8})
    session.ask("steer", "s3", text="z", runId="r3")
    session.ask("withdraw", "w1", steerId="s3")
    session.ask("cancel", "k2", runId="r4")
    session.ask("cancel", "k3", runId="r9", ifUnknown="prevent")
    return session


def finished(session: PureSession) -> Any:
    """What comes of the session when it goes on: every reply and event from here."""
    count = len(session.records)
    replies: list[Any] = [
        session.ask("cancel", "e1", runId="r1"),
        session.ask("cancel", "e2", runId="r4"),
        session.send("r9"),
        session.send("r5", whenBusy="steer"),
        session.ask("answer", "e3", runId="r2", requestId="q1", value=1),
        session.ask("answer", "e4", runId="r2", requestId="q2", value=1),
    ]
    session.say("r2", "three")
    replies.append(session.take("r2"))
    session.settle("r4")
    replies.append(session.ask("cancel", "e5", runId="r2", seen={"epoch": "e1", "seq": session.state.seq - 3}))
    session.settle("r2")
    session.set(node="n2")
    session.work(Sweep())
    return replies, session.events()[count:], session.state.transcript.epoch


def test_goes_on_the_same() -> None:
    """Loaded from the checkpoint, with the events behind it, every later command and event is the same."""
    plain, loaded, behind = eventful(), eventful(), eventful()
    loaded.compact()
    loaded.reopen()
    behind.compact()
    for session in (plain, behind):
        session.say("r2", "between")
    behind.reopen()
    loaded.say("r2", "between")
    expected = finished(plain)
    assert finished(loaded) == expected
    assert finished(behind) == expected


def test_state_is_left_alone() -> None:
    """Making a compaction changes nothing, and what it holds does not change with the state."""
    session = eventful()
    before = dump(session.state)
    compaction = compact(session.state, now=NOW, replay_window_ms=0)
    assert dump(session.state) == before
    checkpoint = through_json(compaction.checkpoint)
    finished(session)
    assert through_json(compaction.checkpoint) == checkpoint


def test_what_goes_to_the_archive() -> None:
    """Final messages and ended runs go, with their steers and lasting commands; what is open stays."""
    session = eventful()
    assert closed_runs(session.state) == 2
    session.compact()
    assert closed_runs(session.state) == 0
    assert list(session.archive.messages) == ["m1", "a~r1", "u~r2", "u~r4", "a~r4"]
    assert session.archive.records["run:r1"].items() >= {"reason": "completed", "seq": 3, "agent": "solo"}.items()
    assert session.archive.records["run:r9"]["cause"] == "prevented"
    assert "command:r3 ana" in session.archive.records
    assert not {"run:r2", "run:r3", "run:r4", "steer:s1"} & set(session.archive.records)
    assert [message["id"] for message in session.state.transcript.messages()] == ["a~r2"]
    assert set(session.state.runs) == {"r2", "r3", "r4"}
    session.settle("r4")
    session.finish("r2")
    session.compact()
    assert session.archive.records["steer:s1"]["status"] == "applied"
    assert "a~r2" in session.archive.messages


def test_order_of_open_messages() -> None:
    """Messages that go on stand in the order of the log, though their runs may have been queued in another."""
    session = PureSession()
    session.send("r1")
    session.send("r2")
    session.send("r3", whenBusy="alongside")
    session.finish("r1")
    ids = [message["id"] for message in session.state.transcript.messages() if message["role"] == "assistant"]
    session.compact()
    session.reopen()
    assert [message["id"] for message in session.state.transcript.messages()] == ids[1:] == ["a~r3", "a~r2"]


def test_archived_with_open_runs_only() -> None:
    """A message that went to the archive before any run ended is still known there."""
    session = PureSession()
    session.send("r1", messageId="m1")
    session.compact()
    session.reopen()
    ask = Ask("ana", "phone", command("send", "r2", text="x", messageId="m1"))
    assert "message:m1" in keys(session.state, ask)


def test_no_lookups_before_anything_was_archived() -> None:
    """A session that has archived nothing never asks the archive."""
    session = PureSession()
    session.send("r1")
    assert keys(session.state, Ask("ana", "phone", command("cancel", "k1", runId="r9"))) == []
    empty = PureSession()
    empty.compact()
    empty.reopen()
    assert keys(empty.state, Ask("ana", "phone", command("cancel", "k1", runId="r9"))) == []


def test_replay_window() -> None:
    """Events are trimmed when they are older than the window, also in a session that is compacted all the time."""
    session = PureSession()
    session.send("r1")
    trimmed: list[int] = []
    for second in range(400):
        session.set(now=NOW + second * 1000)
        session.say("r1", "x")
        compaction = compact(session.state, now=session.context.now, replay_window_ms=100_000)
        compacted(session.state, compaction)
        trimmed.append(compaction.trim_to)
        assert len(compaction.marks) <= 66
    times = {event["seq"]: event["at"] for event in session.events()}
    assert trimmed[99] == 0
    for second, seq in enumerate(trimmed[102:], start=102):
        age = NOW + second * 1000 - times[seq]
        assert 100_000 <= age <= 104_000


def test_a_compaction_that_the_store_refused() -> None:
    """Nothing leaves the state until the store has it; a later compaction writes it all."""
    session = eventful()
    compact(session.state, now=NOW, replay_window_ms=0)
    session.compact()
    assert "run:r1" in session.archive.records


def test_compacted_after_more_has_happened() -> None:
    """What came while the store was writing stays: only what was written goes."""
    session = eventful()
    compaction = compact(session.state, now=NOW, replay_window_ms=0)
    session.ask("cancel", "k9", runId="r3")
    session.send("r6", whenBusy="alongside")
    compacted(session.state, compaction)
    assert {"r3", "r6"} <= set(session.state.runs)
    assert session.state.transcript.has_message("u~r6")
    assert session.state.memories["ana", "r6"]["lasting"]
    assert not session.state.memories["ana", "r1"]["lasting"]


def test_a_memory_that_is_gone_by_then() -> None:
    """A memory may have been let go while the store was writing."""
    session = eventful()
    compaction = compact(session.state, now=NOW, replay_window_ms=0)
    del session.state.memories["ana", "r1"]
    compacted(session.state, compaction)
    assert ("ana", "r1") not in session.state.memories


def test_checkpoint_is_plain() -> None:
    """A checkpoint that went through the store makes the same checkpoint again."""
    session = eventful()
    session.compact()
    again = compact(load(through_json(session.checkpoint)), now=NOW, replay_window_ms=0).checkpoint
    for name in (
        "runs",
        "views",
        "answers",
        "parts",
        "blocks",
        "steers",
        "queue",
        "main",
        "memories",
        "seq",
        "at",
        "lastMessageId",
    ):
        assert through_json(again)[name] == session.checkpoint[name], name


def test_a_checkpoint_from_before_parts_stood_apart() -> None:
    """It is loaded as what it was: the messages of the runs that go on, and which of their parts are closed."""
    session = eventful()
    session.compact()
    checkpoint = through_json(session.checkpoint)
    state = load(checkpoint)
    messages = [view.message for view in state.transcript.runs.values() if view.message is not None]
    for name in ("parts", "blocks", "spilledAt"):
        del checkpoint[name]
    checkpoint["answers"] = [
        {"message": through_json(message.view()), "done": [part.done for part in message.parts]} for message in messages
    ]
    assert dump(load(checkpoint)) == dump(state)


def test_a_long_message_stands_in_pieces() -> None:
    """No list of a checkpoint has an entry that grows with the message of a run."""
    session = PureSession()
    session.careful = False
    session.send("r1")
    for _ in range(100):
        session.say("r1", "é" * 20_000)
    session.compact()
    lists: list[list[Any]] = [value for value in session.checkpoint.values() if isinstance(value, list)]
    largest = max(len(orjson.dumps(entry)) for value in lists for entry in value)
    assert largest < 200_000
    session.reopen()
    assert session.texts("r1") == ["é" * 2_000_000]
