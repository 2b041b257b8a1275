"""The client's state machine on a network that may do anything: any cut, any duplicate, any reconnect.

The server here is a model: a log, the commands it has replied to, and a wire in each direction that may be cut at any
frame. Hypothesis drives it; the client is driven by its own outputs only.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.client.outbox import Settled
from holdfast.client.view import Reset, TextCursor
from holdfast.protocol import JSON_CODEC, Transcript
from tests.client.server_messages import make, sent, snapshot, welcome

RARELY = st.integers(0, 3).map(lambda number: number == 3)


class LossyNetwork(RuleBasedStateMachine):
    """One client, one server, a line that may be cut anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.client = make()
        self.now = 0.0
        self.epoch = 1
        self.log: list[dict[str, Any]] = []
        self.trimmed = 0
        self.replied: dict[str, tuple[bytes, dict[str, Any]]] = {}
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
        """Replies to a hello with a tail, or with a snapshot in one or two messages."""
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
        """Replies to a command; one that had its reply before gets the same one and adds nothing."""
        body = JSON_CODEC.encode(command)
        if command["id"] in self.replied:
            known, ack = self.replied[command["id"]]
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
        self.replied[command["id"]] = (body, ack)
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
        """What was read is a beginning of what was written; each command has at most one reply."""
        written = "".join(self.truth_text())
        assert written.startswith(self.read)
        ids = [settled.command_id for settled in self.settled]
        assert len(ids) == len(set(ids))
        assert self.client.failure is None

    def truth_text(self) -> list[str]:
        """What the agent wrote."""
        return [event["delta"] for event in self.log if event["type"] == "run.chunk"]

    def teardown(self) -> None:
        """Once the network is whole, everything arrives: every reply, the whole log, all the text."""
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


def test_any_network() -> None:
    """Every seq is covered once, every command gets one reply, no text is lost or doubled."""
    run_state_machine_as_test(LossyNetwork, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))
