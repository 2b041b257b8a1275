"""What a session needs of others: the node it lives on, and the tasks that work on its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.protocol.control import Ack
from holdfast.protocol.errors import CommandError
from holdfast.protocol.events import RunInfo
from holdfast.server.clock import Clock
from holdfast.server.registry import AgentTraits, Decision, OwnedWork, Owner, RunState
from holdfast.server.session.slices import Slices
from holdfast.server.settings import SessionSettings
from holdfast.server.store import Store

if TYPE_CHECKING:
    from holdfast.server.session.actor import Session

Answer = Callable[[Ack | CommandError], None]
"""Takes a command's outcome, once, after everything that was committed with it has been written."""


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

    def start_worker(self, session: Session, run: RunState) -> Worker:
        """Starts the task that works on a run."""
        ...
