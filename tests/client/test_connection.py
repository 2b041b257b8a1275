"""The client's state machine, without I/O: phases, time, bounds, close codes."""

from __future__ import annotations

from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import given

from holdfast.client.backoff import BASE_SECONDS, MAX_SECONDS, backoff
from holdfast.client.connection import STABLE_SECONDS
from holdfast.client.errors import (
    ClientClosedError,
    ConflictError,
    ConnectionClosedError,
    ConnectionFailedError,
    OutboxFullError,
    TooLargeError,
)
from holdfast.client.outbox import Outbox
from holdfast.client.phases import TABLE, Input, Phase
from holdfast.client.view import TextCursor, View, reason_of
from tests.client.server_messages import live, lost, make, sent, snapshot, tell, welcome


@given(st.lists(st.lists(st.text(max_size=5), max_size=4), max_size=8))
def test_text_cursor_never_goes_back(views: list[list[str]]) -> None:
    """However the texts grow, shrink or vanish, a reader gets of each part only what is beyond what it took."""
    cursor = TextCursor()
    longest: dict[int, int] = {}
    for texts in views:
        expected = "".join(text[longest.get(number, 0) :] for number, text in enumerate(texts))
        assert cursor.advance(texts) == expected
        for number, text in enumerate(texts):
            longest[number] = max(longest.get(number, 0), len(text))


@given(st.integers(0, 2000), st.floats(0, 1, exclude_max=True), st.none() | st.integers(0, 60_000))
def test_backoff_is_bounded(attempt: int, random: float, hint_ms: int | None) -> None:
    """A wait is jittered over a bound that grows to a limit, and never shorter than the server asks."""
    delay = backoff(attempt, lambda: random, hint_ms=hint_ms)
    hint = (hint_ms or 0) / 1000
    assert hint <= delay <= max(hint, MAX_SECONDS)
    if attempt == 0:
        assert delay <= max(hint, BASE_SECONDS)


@pytest.mark.parametrize("phase", list(TABLE))
def test_missing_cell_is_lost_contact(phase: Phase) -> None:
    """What does not belong into a phase loses contact and folds nothing."""
    messages: dict[Input, Any] = {
        Input.TAIL: welcome("tail", "E"),
        Input.RESET: welcome("reset", "E"),
        Input.EVENT: {"type": "later.kind", "seq": 6, "at": 6},
        Input.SNAPSHOT_PART: snapshot(5, last=False),
        Input.SNAPSHOT_LAST: snapshot(5),
        Input.CAUGHT_UP: {"type": "caughtUp", "seq": 5, "at": 5},
        Input.REFUSAL: {"type": "error", "code": "malformed", "message": "no", "retryable": False},
        Input.GOAWAY: {"type": "goaway", "reason": "draining", "reconnectAfterMs": 100},
        Input.OTHER: {"type": "presence", "devices": [], "total": 0},
    }
    ways: dict[Phase, list[Any]] = {
        Phase.GREETING: [],
        Phase.SNAPSHOT: [welcome("reset")],
        Phase.TAIL: [welcome("tail")],
        Phase.LIVE: [welcome("tail"), {"type": "caughtUp", "seq": 5, "at": 5}],
        Phase.RELOADING: [welcome("tail"), {"type": "caughtUp", "seq": 5, "at": 5}, snapshot(5, last=False)],
    }
    for what, message in messages.items():
        connection = make()
        connection.opening()
        connection.opened(0.0, None)
        tell(connection, welcome(), snapshot(5))
        connection.closed(0.0, 1006)
        connection.opening()
        connection.opened(0.0, None)
        for before in ways[phase]:
            tell(connection, before)
        assert connection.lost is None
        tell(connection, message)
        assert (connection.lost is None) == (what in TABLE[phase]), what
        if what is Input.EVENT:
            assert connection.view.position["seq"] == (6 if what in TABLE[phase] else 5)


def test_duplicates_and_gaps() -> None:
    """What is known already costs nothing; an event, an ack or a head beyond what is known is lost contact."""
    connection = live()
    event = {"type": "later.kind", "seq": 1, "at": 1}
    tell(connection, event, event)
    assert len(connection.news()) == 1
    assert lost(connection) is None
    connection.submit({"type": "withdraw", "id": "k", "steerId": "s"}, 0.0)
    ack = {"type": "ack", "id": "k", "outcome": "withdrawn", "seq": 2}
    ahead: list[dict[str, Any]] = [
        {**event, "seq": 3},
        {**event, "seq": 3, "from": 1},
        {"type": "ping", "head": 2},
        {"type": "caughtUp", "seq": 2, "at": 2},
        ack,
    ]
    for message in ahead:
        connection.lost = None
        tell(connection, message)
        assert lost(connection) is not None, message
        assert connection.view.position["seq"] == 1
    connection.lost = None
    tell(connection, {**ack, "duplicate": True})
    assert lost(connection) is None


def test_damaged_fold_is_thrown_away() -> None:
    """After a message that is none, nothing folded is built upon: the next hello asks for a snapshot."""
    connection = live()
    tell(connection, {"type": "run.started", "seq": 1, "at": 1})
    assert connection.lost is not None
    connection.closed(0.0, 1000)
    connection.opening()
    connection.opened(0.0, None)
    assert "cursor" not in sent(connection)[0]
    tell(connection, welcome("tail"))
    assert connection.lost == "a tail of another log"


def test_not_an_object() -> None:
    """A frame that holds no message is lost contact; a later version's control message is nothing."""
    connection = live()
    tell(connection, {"type": "later", "words": 1})
    assert connection.lost is None
    tell(connection, "words")
    assert connection.lost == "a message is an object"


def test_time() -> None:
    """No welcome for ten seconds, or silence of two heartbeats, is lost contact; offline nothing is due."""
    connection = make()
    assert connection.deadline() is None
    connection.opening()
    connection.opened(0.0, "token")
    assert connection.deadline() == 10.0
    connection.tick(9.9)
    assert lost(connection) is None
    connection.tick(10.0)
    assert lost(connection) == "no welcome came"
    connection = live()
    assert connection.deadline() == 2.0
    tell(connection, {"type": "ping", "head": 0}, now=1.5)
    connection.tick(3.4)
    assert lost(connection) is None
    connection.tick(3.5)
    assert lost(connection) == "nothing was heard for two heartbeats"


def test_held_back_command() -> None:
    """A command that the server holds back is sent again when its time has come, and given up after eight tries."""
    connection = live()
    connection.submit({"type": "withdraw", "id": "k", "steerId": "s"}, 0.0)
    refused = {"type": "error", "id": "k", "code": "rate_limited", "message": "slow", "retryable": True}
    now = 0.0
    for _ in range(8):
        assert [frame["id"] for frame in sent(connection)] == ["k"]
        tell(connection, {**refused, "retryAfterMs": 300}, now=now)
        assert connection.deadline() == now + 0.3
        connection.tick(now + 0.2)
        assert sent(connection) == []
        now += 0.4
        connection.tick(now)
    tell(connection, refused, now=now)
    [settled] = connection.settled()
    assert (settled.command_id, getattr(settled.error, "code", None)) == ("k", "rate_limited")
    tell(connection, refused, now=now)
    assert connection.settled() == []


def test_goaway_hint_and_backoff() -> None:
    """A hint to come back later is honoured once; a connection that was stable starts the backoff anew."""
    connection = make(jitter=0.5)
    waits: list[float | None] = []
    now = 0.0
    for lasts, hint in ((0.0, None), (0.0, None), (0.0, 7_000), (60.0, None)):
        connection.opening()
        connection.opened(now, None)
        tell(connection, welcome(), snapshot(), {"type": "caughtUp", "seq": 0, "at": 0}, now=now)
        if hint is not None:
            tell(connection, {"type": "goaway", "reason": "draining", "reconnectAfterMs": hint}, now=now)
        now += lasts
        connection.closed(now, 4001)
        assert connection.reconnect_at is not None
        waits.append(connection.reconnect_at - now)
        now = connection.reconnect_at
    assert waits == [0.25, 0.5, 7.0, 0.25]


@pytest.mark.parametrize(
    ("code", "final"), [(4001, False), (1006, False), (1012, False), (1000, True), (1009, True), (4500, True)]
)
def test_close_codes(code: int, final: bool) -> None:
    """The close code says whether the client comes back; what this side dropped always does."""
    connection = live()
    connection.submit({"type": "withdraw", "id": "k", "steerId": "s"}, 0.0)
    connection.closed(0.0, code, "why")
    assert (connection.reconnect_at is None) == final
    if final:
        [settled] = connection.settled()
        assert isinstance(settled.error, ConnectionClosedError)
        with pytest.raises(ConnectionClosedError):
            connection.submit({"type": "ping", "id": "p"}, 0.0)
        connection.closed(0.0, 1006)
        assert connection.status == "closed"
    dropped = live()
    dropped.undecodable("noise")
    dropped.closed(0.0, code)
    assert dropped.status == "offline"


def test_could_not_be_opened() -> None:
    """A connection that could not be opened is tried again; the outbox waits."""
    connection = make()
    connection.submit({"type": "withdraw", "id": "k", "steerId": "s"}, 0.0)
    connection.opening()
    connection.closed(0.0, 1006, transient=ConnectionFailedError("nobody"))
    assert (connection.status, len(connection.outbox)) == ("offline", 1)
    connection.close()
    [settled] = connection.settled()
    assert isinstance(settled.error, ClientClosedError)


def test_outbox_bounds() -> None:
    """A full outbox and a command over the limit are refused at once; the same command is taken once."""
    connection = live(outbox=Outbox(max_commands=2, max_bytes=10_000))
    connection.submit({"type": "send", "id": "a", "text": "x"}, 0.0)
    connection.submit({"type": "send", "id": "a", "text": "x"}, 0.0)
    with pytest.raises(ConflictError):
        connection.submit({"type": "send", "id": "a", "text": "y"}, 0.0)
    with pytest.raises(TooLargeError):
        connection.submit({"type": "send", "id": "b", "text": "x" * 5000}, 0.0)
    connection.submit({"type": "send", "id": "b", "runId": "r", "text": "x"}, 0.0)
    with pytest.raises(OutboxFullError):
        connection.submit({"type": "send", "id": "c", "text": "x"}, 0.0)
    assert [frame["id"] for frame in sent(connection)] == ["a", "b"]
    assert connection.outbox.starts_run("a")
    assert connection.outbox.starts_run("r")
    assert not connection.outbox.starts_run("b")


def test_smaller_limit_elsewhere() -> None:
    """A command that waits and is too large for the server found next fails here and is not sent."""
    connection = make()
    connection.submit({"type": "send", "id": "big", "text": "x" * 5000}, 0.0)
    connection.opening()
    connection.opened(0.0, None)
    tell(connection, welcome())
    assert [frame["type"] for frame in sent(connection)] == ["hello"]
    [settled] = connection.settled()
    assert isinstance(settled.error, TooLargeError)


def test_half_a_page_is_none() -> None:
    """Half a page of history is dropped with its connection, and asked for again."""
    connection = live()
    message: dict[str, Any] = {
        "id": "m",
        "role": "user",
        "parts": [],
        "at": 1,
        "seq": 1,
        "after": None,
        "status": "complete",
    }
    connection.submit({"type": "history", "id": "h"}, 0.0)
    page: dict[str, Any] = {"type": "page", "id": "h", "messages": [message], "more": True, "last": False}
    tell(connection, page)
    connection.closed(0.0, 1006)
    connection.opening()
    connection.opened(0.0, None)
    tell(connection, welcome("tail"))
    tell(connection, {**page, "last": True})
    [settled] = connection.settled()
    assert settled.reply is not None
    assert getattr(settled.reply, "messages", None) == [message]


def test_old_messages_are_forgotten() -> None:
    """A client holds a bounded number of messages, keeps those of open runs, and says that there are more."""
    view = View(messages_kept=2)
    seq = 0
    for run_id in ("a", "b", "c"):
        begun: list[dict[str, Any]] = [
            {"type": "message", "message": {"id": f"m-{run_id}", "role": "user", "parts": []}, "after": None},
            {
                "type": "run.started",
                "agent": "x",
                "by": "p",
                "device": "d",
                "messageId": f"a-{run_id}",
                "after": f"m-{run_id}",
                "attempt": 1,
                "node": "n",
            },
        ]
        for event in begun:
            seq += 1
            view.apply({**event, "seq": seq, "at": seq, "runId": run_id})
        if run_id != "b":
            seq += 1
            view.apply({"type": "run.ended", "seq": seq, "at": seq, "runId": run_id, "reason": "lost", "returned": []})
    assert [message["id"] for message in view.transcript.messages()] == ["m-b", "a-b", "m-c", "a-c"]
    assert view.transcript.more
    assert (view.status("a"), view.status("b"), view.status("z")) == ("ended", "running", "unknown")
    assert view.message("a") is None


def test_messages_of_a_run_in_a_state_of_a_newer_server_are_kept() -> None:
    """A status that this client does not know is one of a run that goes on: nothing of it is forgotten."""
    view = View(messages_kept=1)
    message: dict[str, Any] = {
        "id": "a",
        "role": "assistant",
        "parts": [],
        "at": 1,
        "seq": 1,
        "after": None,
        "runId": "r",
    }
    run: dict[str, Any] = {"runId": "r", "status": "paused", "by": "p", "device": "d", "messageId": "a"}
    view.load(
        cast(
            "Any",
            snapshot(1, messages=[{**message, "status": "streaming"}], runs=[{**run, "requests": [], "steers": []}]),
        )
    )
    user: dict[str, Any] = {"id": "u", "role": "user", "parts": [], "by": "p", "device": "d", "at": 1}
    view.apply({"type": "message", "seq": 2, "at": 2, "runId": "s", "message": user, "after": "a"})
    view.apply({"type": "run.ended", "seq": 3, "at": 3, "runId": "s", "reason": "lost", "returned": []})
    assert (view.status("r"), view.reason("r")) == ("paused", None)
    assert [message["id"] for message in view.transcript.messages()] == ["a", "u"]


def test_a_run_that_ended_in_a_log_that_is_gone() -> None:
    """What a lost log told of a run's end is forgotten where the next one has it going on."""
    view = View()
    start = {
        "type": "run.started",
        "runId": "r",
        "messageId": "a",
        "agent": "x",
        "by": "b",
        "device": "d",
        "after": "u",
    }
    view.apply({**start, "seq": 1, "at": 1})
    view.apply({"type": "run.ended", "seq": 2, "at": 2, "runId": "r", "reason": "cancelled", "by": "b", "returned": []})
    assert view.reason("r") == "cancelled"
    run: Any = {
        "runId": "r",
        "status": "running",
        "by": "b",
        "device": "d",
        "messageId": "a",
        "requests": [],
        "steers": [],
    }
    replaced: Any = snapshot(9, "F", runs=[run])
    view.load(replaced)
    assert (view.status("r"), view.reason("r"), view.ending("r"), view.ender("r")) == (
        "running",
        None,
        None,
        (None, None),
    )


def test_leaving() -> None:
    """Who is about to close gives no more commands, and the one that waits makes the next connection due now."""
    connection = live(jitter=0.5)
    connection.closed(1.0, 1006)
    assert connection.reconnect_at == 1.25
    connection.leave(1.1)
    assert connection.reconnect_at == 1.25, "nothing waits for it"
    connection = live(jitter=0.5)
    connection.submit({"type": "history", "id": "h"}, 0.0)
    connection.submit({"type": "cancel", "id": "k", "runId": "r"}, 0.0)
    assert [command["id"] for command in connection.outstanding] == ["k"]
    connection.closed(1.0, 1006)
    connection.leave(1.1)
    assert connection.reconnect_at == 1.1
    with pytest.raises(ClientClosedError):
        connection.submit({"type": "cancel", "id": "k-2", "runId": "r"}, 1.2)


def test_leaving_respects_the_servers_wish() -> None:
    """Who is about to close comes back no earlier than the server wished, and no later than it would have."""
    for jitter, at in ((0.5, 1.3), (0.0, 1.3)):
        connection = live(jitter=jitter)
        connection.submit({"type": "cancel", "id": "k", "runId": "r"}, 0.0)
        tell(connection, {"type": "goaway", "reason": "draining", "reconnectAfterMs": 300})
        connection.closed(1.0, 1012)
        connection.leave(1.1)
        assert connection.reconnect_at == at


def test_settled_commands_make_room() -> None:
    """The outbox is bounded by what waits, not by what was ever given: a reply, or the end, gives its bytes back."""
    outbox = Outbox(max_bytes=10)
    for _ in range(3):
        outbox.add({"id": "k", "type": "cancel"}, b"x" * 10)
        with pytest.raises(OutboxFullError):
            outbox.add({"id": "k-2", "type": "cancel"}, b"x")
        assert outbox.settle("k") is not None
    outbox.add({"id": "k", "type": "cancel"}, b"x" * 10)
    assert outbox.clear() == ["k"]
    outbox.add({"id": "k", "type": "cancel"}, b"x" * 10)


def test_pings_read_together_get_one_pong() -> None:
    """Any number of pings in one go get one pong, and the next ping by another."""
    connection = live()
    tell(connection, *[{"type": "ping", "head": 0}] * 3)
    assert sent(connection) == [{"type": "pong"}]
    tell(connection, {"type": "ping", "head": 0})
    assert sent(connection) == [{"type": "pong"}]


def test_an_acknowledgement_is_told_also_where_events_are_missing() -> None:
    """The reply to a command counts, and contact is lost where it names an event that is not here."""
    connection = live()
    connection.submit({"type": "cancel", "id": "k", "runId": "r"}, 0.0)
    tell(connection, {"type": "ack", "id": "k", "outcome": "cancelled", "seq": 3})
    assert [settled.command_id for settled in connection.settled()] == ["k"]
    assert lost(connection) == "events up to 3 are missing"


def test_replies_of_a_newer_server() -> None:
    """A message whose status this version does not know is that of a run that was interrupted."""
    assert reason_of(cast("Any", {"status": "parked"})) == "cancelled"


def test_a_connection_that_was_stable_starts_anew() -> None:
    """From the fifth second of being live on, the backoff begins anew; shorter ones count as failures."""
    for seconds, bound in ((STABLE_SECONDS, BASE_SECONDS), (STABLE_SECONDS - 0.001, 4 * BASE_SECONDS)):
        connection = make(jitter=1.0)
        for _ in range(2):
            connection.opening()
            connection.closed(0.0, 1006)
        connection.opening()
        connection.opened(0.0, None)
        tell(connection, welcome(), snapshot(), {"type": "caughtUp", "seq": 0, "at": 0})
        connection.closed(seconds, 1006)
        assert connection.reconnect_at == pytest.approx(seconds + bound)


def test_what_belongs_to_a_connection_ends_with_it() -> None:
    """Offline nobody is present, and the words of an error that closed one connection explain no later close."""
    connection = live()
    tell(connection, {"type": "presence", "devices": [{"device": "d", "principal": "p"}], "total": 1})
    error = {"type": "error", "code": "unauthorized", "message": "too old", "retryable": False}
    tell(connection, error)
    assert (connection.presence["total"], connection.refused) == (1, "too old")
    connection.closed(1.0, 1006)
    assert connection.presence == {"type": "presence", "devices": [], "total": 0}
    connection.opening()
    connection.opened(1.0, None)
    tell(connection, welcome("tail"), now=1.0)
    connection.closed(1.0, 4505, "by operator")
    assert "by operator" in str(connection.failure)


def test_a_damaged_fold_is_mended_by_a_snapshot() -> None:
    """After a message that is none the next hello asks for a snapshot, and the one after it resumes again."""
    connection = live()
    tell(connection, {"type": "snapshot"})
    hellos: list[dict[str, Any]] = []
    for _ in range(2):
        connection.closed(0.0, 1006)
        connection.opening()
        connection.opened(0.0, None)
        hellos += sent(connection)
        tell(connection, welcome("reset"), snapshot(3))
    assert ["cursor" in hello for hello in hellos] == [False, True]


def test_another_attempt_is_not_another_message() -> None:
    """A run that is started again counts once among the messages that are kept."""
    view = View(messages_kept=2)
    user: dict[str, Any] = {"id": "u", "role": "user", "parts": [], "by": "p", "device": "d", "at": 1}
    names = {"runId": "r", "messageId": "a", "after": "u", "agent": "x", "by": "p", "device": "d", "node": "n"}
    view.apply({"type": "message", "seq": 1, "at": 1, "runId": "r", "message": user, "after": None})
    view.apply({"type": "run.started", "seq": 2, "at": 2, "attempt": 1, **names})
    view.apply({"type": "run.started", "seq": 3, "at": 3, "attempt": 2, **names})
    view.apply({"type": "run.ended", "seq": 4, "at": 4, "runId": "r", "reason": "lost", "returned": []})
    assert [message["id"] for message in view.transcript.messages()] == ["u", "a"]
