"""What a session's log means to the server: its runs, its queue, and the commands it remembers.

Theory of operation: `SessionState` is nothing but the fold of a log (`fold.py`), or of a checkpoint and the log behind
it. The part that clients see too is the `Transcript`; what only the server needs stands beside it in `RunState`. What
has ended and was archived leaves the state: its ids are then found by `keys.py`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, NamedTuple, NotRequired

from pydantic import JsonValue
from typing_extensions import TypedDict

from holdfast.protocol.control import Ack
from holdfast.protocol.events import EndReason, Event, Kept, PendingSteer, UserMessage
from holdfast.protocol.messages import TEXT_KINDS, OpenMessage
from holdfast.protocol.transcript import Transcript
from holdfast.server.registry.table import ACTIVE, OPEN, RunPhase

BOUNDARIES_KEPT: Final = 4096
"""How many chunk boundaries of an active run are known; an older `seen` cuts at the oldest of them."""
MEMORY_KEPT_MS: Final = 600_000
MEMORIES_KEPT: Final = 1000
"""A command is remembered at least this long and among this many, whichever is more."""


class Memory(TypedDict):
    """What is remembered of a command that added events: enough to reply to it again.

    `lasting` ones are remembered as long as the session, the others for ten minutes and a thousand commands.
    """

    principal: str
    id: str
    digest: str
    reply: Ack
    at: int
    lasting: bool


class Terms(TypedDict):
    """What a run was accepted under, and its events do not say."""

    alongside: bool
    acceptedAt: int
    deadlineAt: NotRequired[int]
    abandonMs: NotRequired[int]
    crashes: NotRequired[int]
    """How often its node died while its agent worked: one that waits for an answer has not done it."""
    metadata: NotRequired[dict[str, JsonValue]]


class Note(TypedDict, total=False):
    """What the log keeps beside an event, for the server only."""

    memory: Memory
    terms: Terms


class Record(NamedTuple):
    """One entry of the log as the store keeps it."""

    event: Event
    note: Note | None = None


class Boundary(NamedTuple):
    """Before the event `seq`, the part had `length` code points."""

    seq: int
    part: int
    length: int


class SteerStatus(Enum):
    """What became of a steer."""

    PENDING = "pending"
    APPLIED = "applied"
    WITHDRAWN = "withdrawn"
    RETURNED = "returned"
    SENT = "sent"


@dataclass(slots=True)
class SteerState:
    """A steer and the run it was meant for."""

    run_id: str
    status: SteerStatus
    command: str | None = None
    """The id of the command that brought it."""


@dataclass(slots=True)
class RunState:
    """A run as the server knows it."""

    run_id: str
    phase: RunPhase
    first_seq: int
    """Of its first event: a scope cancel touches nothing that is younger than its position."""
    terms: Terms
    agent: str = ""
    """Empty for a prevented run."""
    by: str = ""
    device: str = ""
    command: str | None = None
    """The id of the command that it came from; None for a prevented run."""
    queued_message: UserMessage | None = None
    """The user's, while queued."""
    node: str = ""
    attempt: int = 0
    message: OpenMessage | None = None
    """The assistant's, while active."""
    boundaries: deque[Boundary] = field(default_factory=lambda: deque[Boundary](maxlen=BOUNDARIES_KEPT))
    resolved: dict[str, str] = field(default_factory=dict[str, str])
    """Outcomes of requests that are no longer open."""
    reason: EndReason | None = None
    cause: str | None = None
    ended_seq: int = 0
    ended_at: int = 0

    @property
    def active(self) -> bool:
        """Whether an agent works on it."""
        return self.phase in ACTIVE

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.phase in OPEN

    def copy(self, message: OpenMessage | None) -> RunState:
        """One that goes on without this one, with `message` in place of its own."""
        return replace(self, message=message, boundaries=self.boundaries.copy(), resolved=self.resolved.copy())

    def kept(self, seen_seq: int) -> list[Kept]:
        """How long each text and reasoning part of an active run was at the event `seen_seq`, zeros included."""
        assert self.message is not None, "an active run has a message"
        lengths = {number: part.length for number, part in enumerate(self.message.parts) if part.kind in TEXT_KINDS}
        for boundary in reversed(self.boundaries):
            if boundary.seq <= seen_seq:
                break
            lengths[boundary.part] = min(lengths[boundary.part], boundary.length)
        return [{"part": number, "length": length} for number, length in lengths.items()]


class SessionState:
    """The folded state of one session."""

    def __init__(self, epoch: str) -> None:
        self.transcript = Transcript()
        self.transcript.epoch = epoch
        self.runs: dict[str, RunState] = {}
        """All runs that were not archived, by id, in the order of their first event."""
        self.queue: list[str] = []
        self.main: str | None = None
        """The active run that makes the session busy."""
        self.steers: dict[str, SteerState] = {}
        """Those of the runs above."""
        self.memories: OrderedDict[tuple[str, str], Memory] = OrderedDict()
        """By principal and command id, oldest first."""
        self.spilled_at = 0
        """The time of the youngest memory that was left to the archive because there were so many; 0 for none."""
        self.last_message_id: str | None = None
        self.archived = False
        """Whether anything has left this state: ids it does not know may then be in the archive."""
        self.marks: list[tuple[int, int]] = []
        """(time, seq) of earlier checkpoints, oldest first: what the replay window is measured by."""

    def copy(self) -> SessionState:
        """One that goes on without this one; what has ended in it is shared."""
        twin = SessionState("")
        twin.transcript = self.transcript.copy()
        for run_id, run in self.runs.items():
            view = twin.transcript.runs.get(run_id)
            message = None if view is None else view.message
            twin.runs[run_id] = run if run.phase is RunPhase.CLOSED else run.copy(message)
        twin.queue, twin.main = self.queue.copy(), self.main
        twin.steers = {steer_id: replace(steer) for steer_id, steer in self.steers.items()}
        twin.memories, twin.spilled_at = self.memories.copy(), self.spilled_at
        twin.last_message_id, twin.archived, twin.marks = self.last_message_id, self.archived, self.marks
        return twin

    @property
    def epoch(self) -> str:
        """Of the numbering."""
        return self.transcript.epoch

    @property
    def seq(self) -> int:
        """The head: of the last event folded."""
        return self.transcript.seq

    @property
    def at(self) -> int:
        """The time of the head; events never go back behind it."""
        return self.transcript.at

    def open_runs(self) -> list[RunState]:
        """Runs that have not ended, oldest first."""
        return [run for run in self.runs.values() if run.open]

    def pending_steers(self, run_id: str) -> list[PendingSteer]:
        """Steers of a run that were neither applied nor taken back, in their order."""
        run = self.transcript.runs.get(run_id)
        return [] if run is None else run.info["steers"]

    def has_steer_or_run(self, some_id: str) -> bool:
        """Whether the id is taken, as far as this state knows."""
        return some_id in self.runs or some_id in self.steers

    def remember(self, memory: Memory) -> None:
        """Keeps the reply to a command, and lets those go that are old and many enough.

        Lasting ones stay until the archive has them, and with them whatever is younger.
        """
        memories = self.memories
        memories[memory["principal"], memory["id"]] = memory
        while len(memories) > MEMORIES_KEPT:
            oldest = next(iter(memories.values()))
            if oldest["lasting"] or oldest["at"] >= memory["at"] - MEMORY_KEPT_MS:
                break
            memories.popitem(last=False)

    def forget_runs(self, run_ids: Iterable[str]) -> None:
        """Lets archived runs go, with their steers."""
        gone = set(run_ids)
        for run_id in gone:
            self.runs.pop(run_id, None)
        self.steers = {key: steer for key, steer in self.steers.items() if steer.run_id not in gone}
        self.archived = True
