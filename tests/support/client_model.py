"""What must hold of those who were told: subscribers of a session, and whoever sent it commands.

A `Reader` takes every message that one subscriber is sent and checks it on the way; `check_readers` and
`check_replies` hold what readers and replies say against the log, when everything has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.protocol.control import Ack, Snapshot
from holdfast.protocol.errors import CommandError
from holdfast.protocol.transcript import Transcript
from holdfast.server.registry import Ask
from holdfast.server.registry.commands import digest_of
from tests.support.log_model import CUT_KINDS, LogModel, Place, require


class Reader:
    """One subscriber over its whole life. Feed `receive` with everything it is sent, in order."""

    def __init__(self) -> None:
        self.epoch = ""
        self.seq = 0
        self.transcript = Transcript()
        self.seen: dict[Place, Mapping[str, Any]] = {}
        """Events since the last snapshot, those that stand for several left out."""
        self.awaits_snapshot = True
        self._received: list[Mapping[str, Any]] = []

    @property
    def cursor(self) -> dict[str, Any] | None:
        """Where it stands; None before it stands anywhere."""
        if not self.epoch:
            return None
        cursor: dict[str, Any] = {"epoch": self.epoch, "seq": self.seq}
        return {**cursor, "at": self.transcript.at} if self.seq else cursor

    def receive(self, message: Mapping[str, Any]) -> None:
        """Takes the next message of the server; replies and presence included."""
        match message["type"]:
            case "welcome":
                self._welcome(message)
            case "snapshot":
                self._snapshot(message)
            case "caughtUp":
                require(message["seq"] == self.seq, "caughtUp names what was sent")
            case "ack":
                require(message.get("seq", 0) <= self.seq, "an ack follows its events")
            case "ping":
                require(message["head"] == self.seq, "ping.head is what this connection has been sent")
            case "error" | "page" | "goaway" | "presence":
                pass
            case _:
                self._event(message)
        self._received.append(message)

    def _welcome(self, message: Mapping[str, Any]) -> None:
        self.transcript.discard_partial_snapshot()
        self.awaits_snapshot = message["resume"] != "tail"
        require(self.awaits_snapshot or message["epoch"] == self.epoch, "a tail goes on in the cursor's epoch")

    def _snapshot(self, message: Mapping[str, Any]) -> None:
        known = message["epoch"] == self.epoch or not self.epoch
        require(known or message["reset"], "a new epoch is announced")
        snapshot: Any = message
        whole: Snapshot = snapshot
        if self.transcript.load(whole):
            self.epoch, self.seq = message["epoch"], message["seq"]
            self.seen = {}
            self.awaits_snapshot = False

    def _event(self, event: Mapping[str, Any]) -> None:
        require(not self.awaits_snapshot, "no event comes before the snapshot that was announced")
        first = event.get("from", event["seq"])
        require(first == self.seq + 1, f"every seq once, in order: {first} after {self.seq}")
        self.seq = event["seq"]
        self.transcript.apply(event)
        if "from" not in event:
            self.seen[self.epoch, self.seq] = event

    def rewind(self, count: int) -> None:
        """Goes back to what it was before the last `count` messages: a client that had stored an older state."""
        messages = self._received[: max(0, len(self._received) - count)]
        fresh = Reader()
        for message in messages:
            fresh.receive(message)
        fresh.transcript.discard_partial_snapshot()
        self.__dict__.update(fresh.__dict__)


@dataclass(frozen=True)
class Replied:
    """A command with the reply it got."""

    ask: Ask
    head: Place
    """Where the store's log stood when the command arrived."""
    epoch: str
    """In which it was decided."""
    reply: Ack | CommandError


def check_readers(readers: Iterable[Reader], log: LogModel) -> None:
    """Everyone who has caught up holds the log as it is: the same events, and their fold."""
    whole = Transcript()
    for event in log.events.values():
        whole.apply(event)
    for run_id, story in log.runs.items():
        if story.starts:
            message = whole.message(story.starts[0]["messageId"])
            assert message is not None
            texts = [part["text"] for part in message["parts"] if part["kind"] in CUT_KINDS]
            require(texts == story.texts(), f"the text of {run_id} is what was produced, cut by what was seen")
    for reader in readers:
        for place, event in reader.seen.items():
            require(log.events.get(place) == event, f"{place} names the same event for everyone")
        require(reader.transcript.messages() == whole.messages(), "snapshot and folded tail give the same transcript")


_ADDS_NOTHING: Final = frozenset(
    {"already_ended", "unknown_run", "already_applied", "unknown_steer", "already_answered", "unknown_request", "ended"}
)


def check_replies(replies: Iterable[Replied], log: LogModel) -> None:
    """Every reply is true of the log, and a command sent twice has one effect and one reply.

    A reply whose events the store has lost again is passed over: its loss was announced.
    """
    known: dict[tuple[str, str], tuple[str, Ack]] = {}
    order = {place: number for number, place in enumerate(log.events)}
    for replied in replies:
        ask, reply = replied.ask, replied.reply
        key = (ask.principal, ask.command.id)
        first = known.get(key)
        if isinstance(reply, CommandError):
            continue
        place = (replied.epoch, reply.get("seq", 0))
        if "seq" in reply and place not in log.events and reply["outcome"] not in _ADDS_NOTHING:
            if not reply.get("duplicate"):
                continue  # the store lost it again
            place = next((other for other in log.events if other[1] == reply["seq"]), place)
            if place not in log.events:
                continue
        if reply.get("duplicate"):
            if first is not None:
                require(first[0] == digest_of(ask), f"{key} was another command: conflict")
                same = {name: value for name, value in reply.items() if name != "duplicate"} == first[1]
                require(same, f"{key} sent twice gets the same reply twice: {reply} for {first[1]}")
            continue
        adds = "seq" in reply and reply["outcome"] not in _ADDS_NOTHING
        require(not (adds and first), f"{key} took effect twice: {reply} after {first and first[1]}")
        if adds:
            known[key] = (digest_of(ask), reply)
        _check_outcome(replied, reply, log, order)


def _check_outcome(replied: Replied, reply: Ack, log: LogModel, order: Mapping[Place, int]) -> None:
    run_id = reply.get("runId", "")
    story = log.runs.get(run_id)
    before = order.get(replied.head, -1)
    match reply["outcome"]:
        case "started":
            started = story is not None and story.starts and story.starts[0]["seq"] <= reply.get("seq", 0)
            require(started, f"{run_id} was acknowledged as started")
        case "cancelled" if "runIds" in reply:
            up_to: Any = replied.ask.command
            for cancelled in reply["runIds"]:
                first = log.runs[cancelled].first
                require(first[1] <= up_to.up_to.seq, f"{cancelled} is younger than the cancel that ended it")
        case "cancelled":
            ended = story is not None and story.ended is not None
            require(ended, f"{run_id} was acknowledged as cancelled and has no end")
        case "already_ended" if "seq" in reply:
            event = log.events.get((replied.epoch, reply["seq"]))
            require(event is None or event["type"] == "run.ended", "already_ended names the terminal")
        case "unknown_run":
            require(story is None or order.get(story.first, -1) > before, f"{run_id} was known when it was asked for")
        case "unknown_steer":
            steer: Any = replied.ask.command
            place = next((p for p, e in log.events.items() if e.get("steerId") == steer.steer_id), None)
            require(place is None or order[place] > before, f"{steer.steer_id} was known when it was asked for")
        case _:
            pass
