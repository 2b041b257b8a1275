"""What a session and those around it need of each other: its node, its workers, and the agents that these call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from holdfast.protocol.control import Ack
from holdfast.protocol.errors import CommandError
from holdfast.protocol.events import Message, PendingSteer, Request, RequestOutcome, RunInfo
from holdfast.protocol.messages import OpenMessage
from holdfast.protocol.values import JSON
from holdfast.server.clock import Clock
from holdfast.server.registry import AgentTraits, Decision, OwnedWork, Owner, RunState
from holdfast.server.session.slices import Slices
from holdfast.server.settings import SessionSettings
from holdfast.server.store import Append, Outcome, Store

Reply = Callable[[Ack | CommandError], None]
"""Takes the reply to a command, its outcome, once, after everything that was committed with it has been written."""


@dataclass(slots=True)
class Output:
    """A piece of work from an agent, and who is told what was decided."""

    work: OwnedWork
    size: int = 0
    done: Callable[[Decision], None] | None = None
    decision: Decision | None = None

    def tell(self) -> None:
        """Tells whoever waits for it; what could not be decided counts as refused."""
        if self.done is not None:
            self.done(self.decision or Decision(refused=True))


class Worker(Protocol):
    """What the actor needs of the task that works on a run here. `worker.py` has the real one."""

    @property
    def owner(self) -> Owner:
        """The attempt it works on."""
        ...

    def take(self) -> list[Output]:
        """All output that waits, in order."""
        ...

    def committed(self, outputs: Sequence[Output]) -> None:
        """What `take` gave is in the log, or was refused."""
        ...

    def halt(self) -> bool:
        """Stops the agent: its run is about to end. False where there was nothing left to stop."""
        ...

    def stranded(self) -> None:
        """The cancel that it was halted for was refused: the run has not ended."""
        ...

    @property
    def over(self) -> bool:
        """Whether `ended` was called."""
        ...

    @property
    def waits(self) -> bool:
        """Whether the agent waits for a person or a client."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether the next process can go on with the run."""
        ...

    def ended(self, event: Mapping[str, Any] | None) -> None:
        """The run has ended with this event; None where it is no longer this worker's."""
        ...

    def steered(self, steer_id: str, boundary: str) -> None:
        """A steer was accepted."""
        ...

    def unsteered(self, steer_id: str) -> None:
        """A steer was withdrawn."""
        ...

    def resolved(self, event: Mapping[str, Any]) -> None:
        """A request was resolved by this event."""
        ...

    def reconcile(self, view: RunInfo) -> None:
        """Events were missed: this is how the run stands now."""
        ...

    def drop(self) -> None:
        """Stops the agent without a word in the log."""
        ...


class SessionPort(Protocol):
    """The session of a run, as the run's worker needs it."""

    @property
    def id(self) -> str:
        """The session's id."""
        ...

    async def conversation(self, run_id: str) -> list[Message]:
        """The transcript as a run's agent should see it: all messages before its own."""
        ...

    def produced(self, worker: Worker) -> None:
        """A worker has output to take."""
        ...

    def worker_done(self, worker: Worker) -> None:
        """The worker's task has stopped, and everything it had to say has been committed."""
        ...

    def message(self, run_id: str) -> OpenMessage | None:
        """The message of a run that goes on as it is in the log, not to be changed; None where it has ended."""
        ...


class Turn(Protocol):
    """A session, as the turns of its node see it."""

    def decide(self) -> Append | None:
        """What it adds to its log, if anything. Raises nothing."""
        ...

    def landed(self, append: Append, outcome: Outcome) -> None:
        """What became of that. Raises nothing."""
        ...


class Turns(Protocol):
    """The turns of a node, in which its sessions decide, append and tell together."""

    def add(self, member: Turn) -> None:
        """Takes part in the next turn. Harmless where it does already."""
        ...


class Host(Protocol):
    """The node that a session lives on."""

    @property
    def node(self) -> str:
        """New at every process start."""
        ...

    @property
    def store(self) -> Store:
        """Where the logs are."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def settings(self) -> SessionSettings:
        """Bounds and times."""
        ...

    @property
    def slices(self) -> Slices:
        """Where long work is done a little at a time."""
        ...

    @property
    def traits(self) -> Mapping[str, AgentTraits]:
        """The agents that this node can run; the first is the default."""
        ...

    @property
    def accepting(self) -> bool:
        """False while draining."""
        ...

    @property
    def turns(self) -> Turns:
        """The turns in which its sessions work."""
        ...

    def start_worker(self, session: SessionPort, run: RunState) -> Worker:
        """Starts the task that works on a run."""
        ...


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run's particulars."""

    run_id: str
    agent: str
    by: str
    device: str
    attempt: int
    metadata: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. `value`, `by` and `device` are there when it was answered."""

    outcome: RequestOutcome
    value: JSON = None
    by: str | None = None
    device: str | None = None


@dataclass(slots=True, eq=False)
class InterruptScope:
    """The body of `run.interruptible()`. `interrupted` tells afterwards whether a steer cut it short."""

    task: asyncio.Task[Any]
    interrupted: bool = False

    def interrupt(self) -> None:
        """Cancels the body, once."""
        if not self.interrupted:
            self.interrupted = True
            self.task.cancel()


class RunPort(Protocol):
    """Where a run's output goes, and its input comes from: the worker's side of a `Run`."""

    @property
    def session_id(self) -> str:
        """The session's id."""
        ...

    @property
    def info(self) -> RunDetails:
        """What does not change."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the run has ended or is about to. Readable from any thread."""
        ...

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for the agent to stop any more: its grace is over, or the process ends."""
        ...

    def messages(self) -> list[Message]:
        """The transcript with the own message so far."""
        ...

    def put_text(self, kind: Literal["text", "reasoning"], delta: str) -> Awaitable[None] | None:
        """Takes clean text. What it returns, if anything, is to be awaited at once: there was no room for all of it, or
        too much waits for the store now.
        """
        ...

    async def write(self, kind: str, fields: dict[str, JSON]) -> None:
        """Takes a chunk of another kind, clean and small enough."""
        ...

    async def request(self, request: Request, expires_ms: int | None) -> Answer:
        """Opens a request and waits for what becomes of it."""
        ...

    async def take_steers(self) -> list[PendingSteer]:
        """Applies all pending steers."""
        ...

    def next_id(self, prefix: str) -> str:
        """An id that the run has not had."""
        ...

    def add_usage(self, usage: Mapping[str, JSON]) -> None:
        """Merges usage."""
        ...

    def scope(self, scope: InterruptScope | None) -> None:
        """Sets what a `now` steer interrupts, for agents that take steers themselves."""
        ...

    @property
    def steers_pending(self) -> bool:
        """Whether steers wait that were accepted with boundary `now`."""
        ...


class AgentCall(Protocol):
    """One call of an agent."""

    over: bool
    """Whether the agent has returned, or a `now` steer has ended the call: it adds nothing any more."""


class AgentPort(Protocol):
    """The agent of a run, as its worker calls it."""

    @property
    def restartable(self) -> bool:
        """Whether another node may call it again for a run whose node has died."""
        ...

    @property
    def takes_steers(self) -> bool:
        """Whether it takes steers itself; all others are called again for them."""
        ...

    def call(self, run: RunPort) -> tuple[AgentCall, Coroutine[Any, Any, None]]:
        """One call of it for this run, and what the call's task drives."""
        ...
