"""What must hold of a session, whoever serves it: a model of logs, readers and answers that checks as it is fed.

Three parts, which need nothing but what can be seen from outside:

    LogModel      every event of the store's log, in order; `finish()` when everything has ended
    Reader        every message that one subscriber was sent, over any number of connections
    check_answers every command with the answer it got
    check_readers what the readers hold against the log, when everything has ended

A breach is an AssertionError that says in words what was promised. Agents must produce texts that differ from each
other (`produced` holds them by owner), so that a text in the log tells who wrote it and when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from holdfast.protocol.control import Ack, Snapshot
from holdfast.protocol.errors import CommandError
from holdfast.protocol.transcript import Transcript
from holdfast.server.registry import Ask
from holdfast.server.registry.commands import digest_of

Place = tuple[str, int]
"""(epoch, seq)."""
_CUT: Final = frozenset({"text", "reasoning"})
_SENDS_STEERS: Final = frozenset({"completed", "failed", "expired"})
_SETTLES: Final = frozenset({"cancelled", "expired"})


class Author(NamedTuple):
    """Who produces text for a run: the owner named by one `run.started`."""

    run_id: str
    node: str
    attempt: int


def require(condition: object, promise: str) -> None:
    """Fails with the promise that was broken."""
    if not condition:
        raise AssertionError(promise)


@dataclass
class PartStory:
    """One part of an answer: its pieces, and how much of them steers left."""

    kind: str
    pieces: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    cut: int | None = None

    def length(self, seen: int | None = None) -> int:
        """Code points of what was there at the event `seen`, and still is."""
        whole = sum(len(text) for seq, text in self.pieces if seen is None or seq <= seen)
        return whole if self.cut is None else min(whole, self.cut)

    def text(self) -> str:
        """What is left of the part."""
        return "".join(text for _, text in self.pieces)[: self.length()]


@dataclass
class RunStory:
    """What the log has told of one run."""

    first: Place
    queued: bool = False
    starts: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    parts: list[PartStory] = field(default_factory=list[PartStory])
    requests: dict[str, str | None] = field(default_factory=dict[str, str | None])
    """Outcome by request; None while open."""
    pending: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """Steers that were accepted and have no fate yet, in order."""
    ended: Mapping[str, Any] | None = None
    settled: bool = False
    taken: int = 0
    """How many texts of the present author are in the log."""
    may_skip: bool = False
    """A steer was applied: the model call it interrupted may have produced more than was taken."""

    @property
    def active(self) -> bool:
        """Whether an agent works on it."""
        return bool(self.starts) and self.ended is None

    @property
    def author(self) -> Author:
        """Of the latest start."""
        start = self.starts[-1]
        return Author(start["runId"], start["node"], start["attempt"])

    def texts(self) -> list[str]:
        """What a reader is left with of the text and reasoning parts."""
        return [part.text() for part in self.parts if part.kind in _CUT and part.cut != -1]


class LogModel:
    """Checks a session's log event by event.

    `produced` and `alongside` may grow while the log does: the texts that each author has produced so far, and the
    ids of runs that were sent to go beside the main one.
    """

    def __init__(self, produced: Mapping[Author, Sequence[str]], alongside: set[str]) -> None:
        self.produced = produced
        self.alongside = alongside
        self.lost_texts: set[str] = set()
        """What the store had accepted of texts and then lost: its loss is announced, and leaves a hole."""
        self.events: dict[Place, Mapping[str, Any]] = {}
        """The log so far, in order."""
        self.runs: dict[str, RunStory] = {}
        self.steers: dict[str, str] = {}
        """Fate by steer id: pending, applied, withdrawn, returned or sent."""
        self._last: tuple[str, Mapping[str, Any]] | None = None
        self._to_send: list[str] = []
        self._last_message: str | None = None
        self._messages: set[str] = set()
        self._checks: Mapping[str, Callable[[Place, Mapping[str, Any], RunStory | None], None]] = {
            "message": self._message,
            "run.queued": self._queued,
            "run.started": self._started,
            "run.chunk": self._chunk,
            "run.requested": self._requested,
            "run.resolved": self._resolved,
            "steer.accepted": self._accepted,
            "steer.applied": self._applied,
            "steer.withdrawn": self._withdrawn,
            "run.ended": self._ended,
            "run.settled": self._settled,
        }

    def add(self, epoch: str, event: Mapping[str, Any]) -> None:
        """Takes the next event of the log."""
        self._numbering(epoch, event)
        self._expected(event)
        story = self.runs.get(event["runId"])
        self._checks[event["type"]]((epoch, event["seq"]), event, story)
        self._last = (epoch, event)
        self.events[epoch, event["seq"]] = event

    def _numbering(self, epoch: str, event: Mapping[str, Any]) -> None:
        if self._last is None:
            return
        last_epoch, last = self._last
        if epoch == last_epoch:
            require(event["seq"] == last["seq"] + 1, f"seq grows by one: {last['seq']} → {event['seq']}")
        else:
            require(event["seq"] > last["seq"], "a new epoch numbers on above the last one")
        require(event["at"] >= last["at"], "time never goes back in a log")

    def _expected(self, event: Mapping[str, Any]) -> None:
        last = self._last[1] if self._last is not None else None
        if last is not None and last["type"] == "message":
            follows = event["type"] == "run.started" and event["runId"] == last["runId"]
            require(follows, "a message stands immediately before its run.started")
        if self._to_send:
            steer_id = self._to_send.pop(0)
            follows = event["type"] == "run.queued" and event["runId"] == steer_id
            require(follows, f"steer {steer_id} becomes the next message when its run ends")

    def _message(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        message_id = event["message"]["id"]
        require(message_id not in self._messages, f"message id {message_id} is used once")
        require(event["after"] == self._last_message, "a message names the one before it")
        self._messages.add(message_id)
        self._last_message = message_id

    def _queued(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        require(story is None, f"run {event['runId']} is entered once")
        self.runs[event["runId"]] = RunStory(place, queued=True)

    def _started(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        run_id = event["runId"]
        if story is None:
            story = self.runs[run_id] = RunStory(place)
        require(story.ended is None, f"run {run_id} never starts after its end")
        require(event["attempt"] == len(story.starts) + 1, f"one run.started per attempt of {run_id}")
        if story.starts:
            first = story.starts[0]
            same = all(first[name] == event[name] for name in ("messageId", "after", "agent"))
            require(same, "another attempt goes on in the same message")
            story.requests = {name: outcome or "withdrawn" for name, outcome in story.requests.items()}
        else:
            require(self._last is not None and self._last[1]["type"] == "message", "a start follows its message")
            self._last_message = event["messageId"]
            busy = [name for name, other in self.runs.items() if other.active and name not in self.alongside]
            require(run_id in self.alongside or not busy, f"{run_id} starts beside the main run {busy}")
        story.starts.append(event)
        story.taken, story.may_skip = 0, False

    def _chunk(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        require(story is not None and story.active, f"no chunk of {event['runId']} before its start or after its end")
        assert story is not None
        number: int = event["part"]
        require(number <= len(story.parts), "parts are numbered without a gap")
        if number == len(story.parts):
            story.parts.append(PartStory(event["kind"]))
        part = story.parts[number]
        require(part.kind == event["kind"], "a part is of one kind")
        if event["kind"] in _CUT:
            delta: str = event.get("delta", "")
            part.pieces.append((event["seq"], delta))
            self._take(story, delta)

    def _take(self, story: RunStory, text: str) -> None:
        produced = self.produced.get(story.author, ())
        while text:
            require(story.taken < len(produced), f"{story.author} never produced {text!r}")
            token = produced[story.taken]
            story.taken += 1
            if text.startswith(token):
                text = text[len(token) :]
                story.may_skip = False
            else:
                allowed = story.may_skip or token in self.lost_texts
                require(allowed, f"{story.author} produced {token!r} before {text!r}: each text once, in order")

    def _requested(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        require(story is not None and story.active, "only a run that goes on asks")
        assert story is not None
        require(event["request"]["id"] not in story.requests, "a request is opened once")
        story.requests[event["request"]["id"]] = None

    def _resolved(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        require(story is not None and story.active, "only a run that goes on waits")
        assert story is not None
        open_request = story.requests.get(event["requestId"], "unknown") is None
        require(open_request, f"request {event['requestId']} is resolved once")
        story.requests[event["requestId"]] = event["outcome"]

    def _accepted(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        require(story is not None and story.ended is None, "a steer is accepted for a run that has not ended")
        assert story is not None
        steer_id = event["steerId"]
        require(steer_id not in self.steers and steer_id not in self.runs, f"id {steer_id} is used once")
        self.steers[steer_id] = "pending"
        story.pending.append(event)

    def _applied(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        require(story is not None and story.active, "a steer is applied to a run that goes on")
        assert story is not None
        steer = story.pending.pop(0) if story.pending else {"steerId": None}
        require(steer["steerId"] == event["steerId"], f"steer {event['steerId']} is applied once and in order")
        self.steers[event["steerId"]] = "applied"
        require(event.get("seen") == steer.get("seen"), "a steer is applied with the position it came with")
        if "seen" in event:
            lengths = _lengths(story, event["seen"]["seq"])
            require(event["kept"] == lengths, f"kept is what was seen: {event['kept']} for {lengths}")
            for entry in lengths:
                story.parts[entry["part"]].cut = entry["length"]
        story.parts.append(PartStory("steer"))
        story.may_skip = True

    def _withdrawn(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        require(self.steers.get(event["steerId"]) == "pending", "only a pending steer is withdrawn, and once")
        assert story is not None
        story.pending = [steer for steer in story.pending if steer["steerId"] != event["steerId"]]
        self.steers[event["steerId"]] = "withdrawn"

    def _ended(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        run_id, reason = event["runId"], event["reason"]
        if story is None:
            prevented = reason == "cancelled" and event["cause"] == "prevented"
            require(prevented and run_id not in self.steers, f"{run_id} ends without having been there")
            story = self.runs[run_id] = RunStory(place)
        else:
            require(event.get("cause") != "prevented", f"{run_id} is prevented after it was sent")
        require(story.ended is None, f"run {run_id} ends once")
        if not story.starts:
            require(reason in _SETTLES, f"{run_id} cannot end {reason} before it starts")
        story.ended = event
        sends = [steer["steerId"] for steer in story.pending if reason in _SENDS_STEERS and steer["ifEnded"] == "send"]
        returned = [steer["steerId"] for steer in story.pending if steer["steerId"] not in sends]
        told = [steer["steerId"] for steer in event["returned"]]
        require(told == returned, f"steers not applied are returned, or sent: {told} for {returned}")
        self.steers.update(dict.fromkeys(returned, "returned") | dict.fromkeys(sends, "sent"))
        self._to_send, story.pending = sends, []
        if story.starts and reason in ("completed", "failed"):
            left = set(self.produced.get(story.author, ())[story.taken :]) - self.lost_texts
            require(not left or story.may_skip, f"{run_id} ended by itself with all that was produced")
        self._cut(story, event)

    def _cut(self, story: RunStory, event: Mapping[str, Any]) -> None:
        require(("seen" in event) == ("kept" in event), "kept goes with seen")
        if "seen" not in event:
            return
        lengths = [entry for entry in _lengths(story, event["seen"]["seq"]) if entry["length"]]
        require(event["kept"] == lengths, f"kept is what was seen: {event['kept']} for {lengths}")
        left = {entry["part"]: entry["length"] for entry in lengths}
        for number, part in enumerate(story.parts):
            if part.kind in _CUT:
                part.cut = left.get(number, -1)

    def _settled(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        due = story is not None and story.starts and story.ended is not None and story.ended["reason"] in _SETTLES
        require(due, "only a started run that was cancelled or expired settles")
        assert story is not None
        require(not story.settled, f"run {event['runId']} settles once")
        story.settled = True

    def finish(self) -> None:
        """Everything has ended: nothing is left open, unsettled or without a fate."""
        require(not self._to_send, "steers to be sent are sent in the append of the terminal")
        for run_id, story in self.runs.items():
            require(story.ended is not None, f"run {run_id} is left without an end")
            assert story.ended is not None
            due = bool(story.starts) and story.ended["reason"] in _SETTLES
            require(story.settled == due, f"run {run_id} is left without its run.settled")
        left = [steer_id for steer_id, fate in self.steers.items() if fate == "pending"]
        require(not left, f"steers {left} vanished")
        sent = [steer_id for steer_id, fate in self.steers.items() if fate == "sent"]
        require(all(steer_id in self.runs for steer_id in sent), "a steer that was sent became a run")


def _lengths(story: RunStory, seen: int) -> list[dict[str, int]]:
    return [
        {"part": number, "length": part.length(seen)} for number, part in enumerate(story.parts) if part.kind in _CUT
    ]


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
        """Takes the next message of the server; answers and presence included."""
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
class Answered:
    """A command with the answer it got."""

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
            texts = [part["text"] for part in message["parts"] if part["kind"] in _CUT]
            require(texts == story.texts(), f"the text of {run_id} is what was produced, cut by what was seen")
    for reader in readers:
        for place, event in reader.seen.items():
            require(log.events.get(place) == event, f"{place} names the same event for everyone")
        require(reader.transcript.messages() == whole.messages(), "snapshot and folded tail give the same transcript")


_ADDS_NOTHING: Final = frozenset(
    {"already_ended", "unknown_run", "already_applied", "unknown_steer", "already_answered", "unknown_request", "ended"}
)


def check_answers(answers: Iterable[Answered], log: LogModel) -> None:
    """Every answer is true of the log, and a command sent twice has one effect and one answer.

    An answer whose events the store has lost again is passed over: its loss was announced.
    """
    known: dict[tuple[str, str], tuple[str, Ack]] = {}
    order = {place: number for number, place in enumerate(log.events)}
    for answered in answers:
        ask, reply = answered.ask, answered.reply
        key = (ask.principal, ask.command.id)
        first = known.get(key)
        if isinstance(reply, CommandError):
            continue
        place = (answered.epoch, reply.get("seq", 0))
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
                require(same, f"{key} sent twice is answered twice the same: {reply} for {first[1]}")
            continue
        adds = "seq" in reply and reply["outcome"] not in _ADDS_NOTHING
        require(not (adds and first), f"{key} took effect twice: {reply} after {first and first[1]}")
        if adds:
            known[key] = (digest_of(ask), reply)
        _check_outcome(answered, reply, log, order)


def _check_outcome(answered: Answered, reply: Ack, log: LogModel, order: Mapping[Place, int]) -> None:
    run_id = reply.get("runId", "")
    story = log.runs.get(run_id)
    before = order.get(answered.head, -1)
    match reply["outcome"]:
        case "started":
            started = story is not None and story.starts and story.starts[0]["seq"] <= reply.get("seq", 0)
            require(started, f"{run_id} was acknowledged as started")
        case "cancelled" if "runIds" in reply:
            up_to: Any = answered.ask.command
            for cancelled in reply["runIds"]:
                first = log.runs[cancelled].first
                require(first[1] <= up_to.up_to.seq, f"{cancelled} is younger than the cancel that ended it")
        case "cancelled":
            ended = story is not None and story.ended is not None
            require(ended, f"{run_id} was acknowledged as cancelled and has no end")
        case "already_ended" if "seq" in reply:
            event = log.events.get((answered.epoch, reply["seq"]))
            require(event is None or event["type"] == "run.ended", "already_ended names the terminal")
        case "unknown_run":
            require(story is None or order.get(story.first, -1) > before, f"{run_id} was known when it was asked for")
        case "unknown_steer":
            steer: Any = answered.ask.command
            place = next((p for p, e in log.events.items() if e.get("steerId") == steer.steer_id), None)
            require(place is None or order[place] > before, f"{steer.steer_id} was known when it was asked for")
        case _:
            pass
