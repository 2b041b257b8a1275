"""The model of a log: checks a session event by event, as it is fed.

A breach is an AssertionError that says in words what was promised. Agents must produce texts that differ from each
other (`produced` holds them by owner), so that a text in the log tells who wrote it and when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, get_args

from holdfast.protocol.ends import AgentReason
from tests.support.vectors import ENDS

Place = tuple[str, int]
"""(epoch, seq)."""
CUT_KINDS: Final = frozenset({"text", "reasoning"})


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
        return [part.text() for part in self.parts if part.kind in CUT_KINDS and part.cut != -1]


def _settles(story: RunStory) -> bool:
    return bool(story.starts) and story.ended is not None and bool(ENDS[story.ended["reason"]]["settles"])


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
        if event["kind"] in CUT_KINDS:
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
        end = ENDS[reason]
        require(story.starts or "queued" in end["of"], f"{run_id} cannot end {reason} before it starts")
        cause = event.get("cause")
        require(cause in end["causes"] if end["causes"] else cause is None, f"{run_id} ends {reason} for cause {cause}")
        story.ended = event
        sent = end["steers"] == "sent"
        sends = [steer["steerId"] for steer in story.pending if sent and steer["ifEnded"] == "send"]
        returned = [steer["steerId"] for steer in story.pending if steer["steerId"] not in sends]
        told = [steer["steerId"] for steer in event["returned"]]
        require(told == returned, f"steers not applied are returned, or sent: {told} for {returned}")
        self.steers.update(dict.fromkeys(returned, "returned") | dict.fromkeys(sends, "sent"))
        self._to_send, story.pending = sends, []
        if story.starts and reason in get_args(AgentReason):
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
            if part.kind in CUT_KINDS:
                part.cut = left.get(number, -1)

    def _settled(self, place: Place, event: Mapping[str, Any], story: RunStory | None) -> None:
        require(story is not None and _settles(story), "only a started run whose end stops its agent settles")
        assert story is not None
        require(not story.settled, f"run {event['runId']} settles once")
        story.settled = True

    def finish(self) -> None:
        """Everything has ended: nothing is left open, unsettled or without a fate."""
        require(not self._to_send, "steers to be sent are sent in the append of the terminal")
        for run_id, story in self.runs.items():
            require(story.ended is not None, f"run {run_id} is left without an end")
            require(story.settled == _settles(story), f"run {run_id} is left without its run.settled")
        left = [steer_id for steer_id, fate in self.steers.items() if fate == "pending"]
        require(not left, f"steers {left} vanished")
        sent = [steer_id for steer_id, fate in self.steers.items() if fate == "sent"]
        require(all(steer_id in self.runs for steer_id in sent), "a steer that was sent became a run")


def _lengths(story: RunStory, seen: int) -> list[dict[str, int]]:
    return [
        {"part": number, "length": part.length(seen)}
        for number, part in enumerate(story.parts)
        if part.kind in CUT_KINDS
    ]
