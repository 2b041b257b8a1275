"""What is decided: the pieces of work that reach a session, what is known while deciding, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from holdfast.protocol.commands import Answer, Cancel, Send, Steer, Withdraw
from holdfast.protocol.control import Ack
from holdfast.protocol.ends import AgentReason
from holdfast.protocol.events import Failure, PendingSteer, Request
from holdfast.protocol.values import JSON
from holdfast.server.registry.state import Record


@dataclass(frozen=True, slots=True)
class AgentTraits:
    """What deciding needs to know of an agent that this node can run."""

    restartable: bool = False
    """Another node may start a lost run of it again."""
    takes_steers: bool = False
    """It takes steers itself; all others are called again with the steer in their messages."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How much one session may hold at once; beyond it a command is refused with `limit_reached`."""

    queued: int = 100
    crashes: int = 3
    """So many nodes may die under a restartable run: then it is `lost`, for it may be what they died of."""
    alongside: int = 16
    steers: int = 100
    steers_bytes: int = 160 * 1024
    """Pending, for one run: none is accepted beyond either, so that all can come back in one event with what is kept of
    its message, its end, and a run fits into one message of a snapshot.
    """


Due: TypeAlias = tuple[str, str | None]
"""What expires: a run by its deadline, or with the id of a request, that request of the run."""


@dataclass(slots=True)  # one is made for every batch, and a frozen one costs six times as much to make
class Context:
    """Everything that deciding may look at besides the state; read again for every retry. Nobody changes it."""

    now: int
    """Milliseconds since the epoch."""
    node: str
    agents: Mapping[str, AgentTraits]
    """Those that this node can run; the first is the default."""
    accepting: bool = True
    """False while draining: no run starts here."""
    live_nodes: frozenset[str] = frozenset()
    """Nodes whose lease is in force, for `Sweep`."""
    elsewhere: frozenset[str] = frozenset()
    """Agents that other nodes can run, whose lease is in force, for `Sweep`."""
    working: frozenset[str] = frozenset()
    """Runs that somebody works on here: others of this node, for `Sweep`, are as good as a dead node's."""
    left_in_order: bool = False
    """Other nodes than this one did not die, but left their runs to the next, for `Sweep`."""
    alone: bool = False
    """No other node has this store, for `Sweep`: what this one cannot run, nobody can."""
    unobserved_since: int | None = None
    """Since when nobody has watched, for `Upkeep`; None where somebody does, or it is not known."""
    dues: Mapping[Due, int] = field(default_factory=lambda: {})
    """When what expires does so, for `Upkeep` and `answer`, by a clock that stands at `now`: it may have been set since
    the log was written, see `SteadyDues`. What is not in here expires when the log says."""
    archive: Mapping[str, Any] = field(default_factory=lambda: {})
    """The archive's records for the keys that `keys` named."""
    limits: RunLimits = RunLimits()


ClientCommand: TypeAlias = Send | Cancel | Steer | Withdraw | Answer
"""The commands that may add events; the others concern one connection only."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A command and who sent it."""

    principal: str
    device: str
    command: ClientCommand


@dataclass(frozen=True, slots=True)
class Owner:
    """Who works on a run: what counts from it counts only while this is the latest `run.started`."""

    run_id: str
    node: str
    attempt: int


@dataclass(slots=True)  # not frozen, which would triple what it costs to make one
class Chunk:
    """A piece of the run's message, as the event that it becomes: one dict from here to the subscribers.

    Deciding it sets `seq`, `at` and `part` in place; after a conflict it is decided, and numbered, again.
    """

    owner: Owner
    event: dict[str, Any]
    """A `run.chunk`, in the order in which it travels."""

    @classmethod
    def of(cls, owner: Owner, kind: str, fields: Mapping[str, JSON]) -> Chunk:
        """One with the fields of its kind, clean and small enough for one event."""
        event = {"type": "run.chunk", "seq": 0, "at": 0, "runId": owner.run_id, "part": 0, "kind": kind, **fields}
        return cls(owner, event)

    @classmethod
    def of_text(cls, owner: Owner, kind: str, delta: str) -> Chunk:
        """The same for text or reasoning, which nearly all chunks are."""
        return cls(
            owner,
            {"type": "run.chunk", "seq": 0, "at": 0, "runId": owner.run_id, "part": 0, "kind": kind, "delta": delta},
        )


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """The agent asks for something."""

    owner: Owner
    request: Request


@dataclass(frozen=True, slots=True)
class RetractRequest:
    """The agent no longer waits for an answer."""

    owner: Owner
    request_id: str


@dataclass(frozen=True, slots=True)
class TakeSteers:
    """The agent is at a boundary: it gets all pending steers."""

    owner: Owner


@dataclass(frozen=True, slots=True)
class Finish:
    """The agent is done. With `resume_on_steer` pending steers are applied instead: it is called again."""

    owner: Owner
    reason: AgentReason
    error: Failure | None = None
    usage: dict[str, JSON] | None = None
    resume_on_steer: bool = False


@dataclass(frozen=True, slots=True)
class Settle:
    """The work behind a run that was stopped has ended, or the grace for it has."""

    owner: Owner
    stopped_after_ms: int
    confirmed: bool
    usage: dict[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The server itself ends a run."""

    run_id: str
    cause: Literal["shutdown"]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Time has passed: requests and runs expire, abandoned runs end, the queue's head starts where it can."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Runs of nodes without a lease are ended or taken over."""


OwnedWork: TypeAlias = Chunk | OpenRequest | RetractRequest | TakeSteers | Finish | Settle
Work: TypeAlias = Ask | OwnedWork | Stop | Upkeep | Sweep


@dataclass(slots=True)
class Decision:
    """What a piece of work adds to the log, and what whoever brought it is told."""

    records: list[Record] = field(default_factory=lambda: [])
    reply: Ack | None = None
    """For a command."""
    refused: bool = False
    """For an owner's work: the run has ended, or is another owner's. Nothing was added."""
    steers: list[PendingSteer] = field(default_factory=lambda: [])
    """Applied by this decision, in order."""
