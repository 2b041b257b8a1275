"""The client's state machine, without I/O: any cut, any duplicate, any reconnect.

The server here is a model: a log, the commands it has answered, and a wire in each direction that may be cut at any
frame. Hypothesis drives it; the client is driven by its own outputs only.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.client.backoff import BASE_SECONDS, MAX_SECONDS, backoff
from holdfast.client.connection import Connection, Settled
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
from holdfast.client.view import Reset, TextCursor, View
from holdfast.protocol import JSON_CODEC, Transcript

LIMITS = {"frameBytes": 4096, "eventBytes": 4096, "messageBytes": 65536, "commandItems": 64}


def make(*, jitter: float = 0.0, **options: Any) -> Connection:
    """A client whose random numbers are all `jitter`."""
    return Connection(JSON_CODEC, lambda: jitter, device="d", client="test", **options)


def tell(connection: Connection, *messages: Any, now: float = 0.0) -> None:
    """The server says something, all in one frame."""
    connection.received(list(messages), now)


def welcome(resume: str = "snapshot", epoch: str = "E", **fields: Any) -> dict[str, Any]:
    """A welcome message."""
    return {
        "type": "welcome",
        "session": "s",
        "connection": "c",
        "principal": "p",
        "device": "d",
        "at": 1,
        "epoch": epoch,
        "head": 0,
        "resume": resume,
        "heartbeatMs": 1000,
        "features": [],
        "limits": LIMITS,
        **fields,
    }


def snapshot(seq: int = 0, epoch: str = "E", **fields: Any) -> dict[str, Any]:
    """An empty snapshot."""
    return {
        "type": "snapshot",
        "epoch": epoch,
        "seq": seq,
        "at": seq,
        "reset": False,
        "messages": [],
        "runs": [],
        "more": False,
        "last": True,
        **fields,
    }


def live(**options: Any) -> Connection:
    """A client that has caught up with an empty log at time 0."""
    connection = make(**options)
    connection.opening()
    connection.opened(0.0, None)
    tell(connection, welcome(), snapshot(), {"type": "caughtUp", "seq": 0, "at": 0})
    connection.frames()
    connection.news()
    assert connection.status == "live"
    return connection


def lost(connection: Connection) -> str | None:
    """Why the client wants to drop the line."""
    return connection.lost


def sent(connection: Connection) -> list[Any]:
    """What the client wrote, decoded."""
    return [JSON_CODEC.decode(frame.decode()) for frame in connection.frames()]


RARELY = st.integers(0, 3).map(lambda number: number == 3)


class AnyWeather(RuleBasedStateMachine):
    """One client, one server, a line that may be cut anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.client = make()
        self.now = 0.0
        self.epoch = 1
        self.log: list[dict[str, Any]] = []
        self.trimmed = 0
        self.answered: dict[str, tuple[bytes, dict[str, Any]]] = {}
        self.down: list[Any] = []
        self.up: list[Any] = []
        self.connected = False
        self.greeted = False
        self.sent_up_to = 0
        self.issued: list[str] = []
        self.settled: list[Settled] = []
        self.covered: tuple[str, int] | None = None
        self.cursor = TextCursor()
        self.read = ""
        self.started: set[str] = set()

    # ---- the server

    def add(self, type: str, **fields: Any) -> dict[str, Any]:
        """Appends to the log, and sends it to a client that was greeted."""
        seq = len(self.log) + 1
        event = {"type": type, "seq": seq, "at": 10 * self.epoch + seq, **fields}
        self.log.append(event)
        if self.greeted:
            self.down.append(event)
            self.sent_up_to = seq
        return event

    def greet(self, hello: dict[str, Any]) -> None:
        """Answers a hello with a tail, or with a snapshot in one or two messages."""
        cursor: dict[str, Any] = hello.get("cursor", {})
        head = len(self.log)
        seq: int = cursor.get("seq", -1)
        usable = (
            cursor.get("epoch") == f"E{self.epoch}"
            and self.trimmed <= seq <= head
            and (seq == 0 or cursor.get("at") == self.log[seq - 1]["at"])
        )
        resume = "snapshot" if not cursor else "tail" if usable else "reset"
        self.down.append(welcome(resume, f"E{self.epoch}", head=head))
        if usable:
            self.down.extend(self.log[seq:])
        else:
            self.down.extend(self.snapshots())
        self.down.append({"type": "caughtUp", "seq": head, "at": 0})
        self.greeted = True
        self.sent_up_to = head

    def truth(self) -> Transcript:
        """The whole log, folded."""
        transcript = Transcript()
        for event in self.log:
            transcript.apply(event)
        return transcript

    def snapshots(self) -> list[Any]:
        """The session at the head, in two messages."""
        truth = self.truth()
        head = snapshot(len(self.log), f"E{self.epoch}", at=truth.at)
        messages = truth.messages()
        runs = [run.snapshot() for run in truth.runs.values()]
        return [{**head, "messages": messages[:1], "last": False}, {**head, "messages": messages[1:], "runs": runs}]

    def obey(self, command: dict[str, Any]) -> None:
        """Answers a command; one that was answered before gets the same answer and adds nothing."""
        body = JSON_CODEC.encode(command)
        if command["id"] in self.answered:
            known, ack = self.answered[command["id"]]
            assert known == body, "a command sent again is the same command"
            self.down.append({**ack, "duplicate": True})
            return
        assert command["id"] not in self.started, "a send is never doubled"
        self.started.add(command["id"])
        message: dict[str, Any] = {
            "id": f"m-{command['id']}",
            "role": "user",
            "parts": [],
            "by": "p",
            "device": "d",
            "at": 1,
        }
        self.add("message", message=message, runId=command["id"], after=None)
        event = self.add(
            "run.started",
            runId=command["id"],
            agent="a",
            by="p",
            device="d",
            messageId=f"a-{command['id']}",
            after=f"m-{command['id']}",
            attempt=1,
            node="n",
        )
        ack = {"type": "ack", "id": command["id"], "outcome": "started", "runId": command["id"], "seq": event["seq"]}
        self.answered[command["id"]] = (body, ack)
        self.down.append(ack)

    # ---- what happens

    @initialize()
    def begin(self) -> None:
        """A client that has caught up, and a run whose start is under way to it."""
        self.connect()
        self.serve()
        self.deliver(4)
        self.send()
        self.serve()

    @rule()
    def send(self) -> None:
        """The program issues a send, connected or not."""
        command_id = f"r-{len(self.issued)}"
        self.issued.append(command_id)
        self.client.submit({"type": "send", "id": command_id, "text": command_id}, self.now)
        self.take()

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self) -> None:
        """A connection opens."""
        self.client.opening()
        self.client.opened(self.now, None)
        self.connected = True
        self.take()

    @precondition(lambda self: self.connected)
    @rule(rarely=RARELY)
    def cut(self, rarely: bool) -> None:
        """The line is cut: what is under way in either direction is gone."""
        if rarely:
            self.hang_up(1006)

    @precondition(lambda self: self.connected)
    @rule()
    def calm(self) -> None:
        """For a while everything that is sent arrives."""
        while self.up or self.down:
            while self.up:
                self.serve()
            if self.down:
                self.deliver(3)

    @precondition(lambda self: self.up)
    @rule()
    def serve(self) -> None:
        """The server takes the next frame."""
        frame = self.up.pop(0)
        if frame["type"] == "hello":
            self.greet(frame)
        elif frame["type"] == "send":
            self.obey(frame)

    @precondition(lambda self: self.down)
    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        """The client gets the next messages, as one frame."""
        frame, self.down = self.down[:count], self.down[count:]
        self.client.received(frame, self.now)
        self.take()

    def events_under_way(self) -> list[int]:
        """Where on the wire to the client there are events."""
        control = ("snapshot", "ack", "caughtUp")
        return [place for place, message in enumerate(self.down) if "seq" in message and message["type"] not in control]

    @precondition(lambda self: self.events_under_way())
    @rule(index=st.integers(0, 8), back=st.integers(0, 3))
    def repeat(self, index: int, back: int) -> None:
        """A broken server repeats an event, or the ones before it as well."""
        places = self.events_under_way()
        place = places[index % len(places)]
        first = max(1, self.down[place]["seq"] - back)
        self.down[place + 1 : place + 1] = self.log[first - 1 : self.down[place]["seq"]]

    @precondition(lambda self: self.events_under_way())
    @rule(index=st.integers(0, 8))
    def lose(self, index: int) -> None:
        """A broken server loses an event."""
        places = self.events_under_way()
        del self.down[places[index % len(places)]]

    @precondition(lambda self: self.greeted)
    @rule()
    def reload(self) -> None:
        """The server gives a lagging client a snapshot in the middle of a connection."""
        self.down.extend(self.snapshots())

    @precondition(lambda self: self.greeted)
    @rule()
    def heartbeat(self) -> None:
        """The server says how far it has sent."""
        self.down.append({"type": "ping", "head": self.sent_up_to})

    @rule()
    def trim(self) -> None:
        """Old events are gone from the log; only a snapshot can tell them."""
        self.trimmed = len(self.log)

    @rule(rarely=RARELY)
    def new_epoch(self, rarely: bool) -> None:
        """The numbering goes on under another name; everybody is cut off."""
        if not rarely:
            return
        self.epoch += 1
        if self.connected:
            self.hang_up(1012)

    # ---- the shell around the client

    def take(self) -> None:
        """Takes the client's outputs, as the shell does."""
        self.up.extend(sent(self.client))
        self.settled.extend(self.client.settled())
        for news in self.client.news():
            if isinstance(news, Reset):
                position = (news.position["epoch"], news.position["seq"])
                if self.covered is not None:
                    assert news.new_epoch == (self.covered[0] != position[0])
                self.covered = position
            else:
                assert self.covered is not None
                assert news.get("from", news["seq"]) == self.covered[1] + 1, "each seq once, in order"
                self.covered = (self.covered[0], news["seq"])
        self.read += self.cursor.advance(self.client.view.texts("r-0"))
        if self.client.lost is not None:
            self.hang_up(1000)

    def hang_up(self, code: int) -> None:
        """The connection is gone."""
        self.down, self.up = [], []
        self.connected = self.greeted = False
        self.client.closed(self.now, code)
        self.settled.extend(self.client.settled())

    @invariant()
    def never_ahead_never_doubled(self) -> None:
        """What was read is a beginning of what was written; each command has at most one answer."""
        written = "".join(self.truth_text())
        assert written.startswith(self.read)
        ids = [settled.command_id for settled in self.settled]
        assert len(ids) == len(set(ids))
        assert self.client.failure is None

    def truth_text(self) -> list[str]:
        """What the agent wrote."""
        return [event["delta"] for event in self.log if event["type"] == "run.chunk"]

    def teardown(self) -> None:
        """Once the weather is fine, everything arrives: every answer, the whole log, all the text."""
        for _ in range(3):
            if not self.connected:
                self.connect()
            self.calm()
            if self.connected:
                self.heartbeat()
                self.calm()
        assert self.client.status == "live"
        assert self.client.view.position == {"epoch": f"E{self.epoch}", "seq": len(self.log)}
        assert {settled.command_id for settled in self.settled} == set(self.issued)
        assert len(self.client.outbox) == 0
        assert self.read == "".join(self.truth_text())
        assert self.client.view.transcript.messages() == self.truth().messages()


def test_any_weather() -> None:
    """Every seq is covered once, every command is answered once, no text is lost or doubled."""
    run_state_machine_as_test(AnyWeather, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))


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
    """Half an answer to `history` is dropped with its connection, and asked for again."""
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
