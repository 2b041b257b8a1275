"""What an agent is: a function of a `Run`, and what the server may do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from holdfast.server.registry import AgentTraits

if TYPE_CHECKING:
    from holdfast.server.agents.run import Run

AgentFunction: TypeAlias = "Callable[[Run], AsyncIterator[str] | Awaitable[None]]"
"""Either an async generator of strings, which are the answer's text, or a coroutine function that uses the run."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A named agent.

    `restartable`: another node may call it again for a run whose node has died, with the answer so far in
    `run.messages`; runs of all others end `lost`. `takes_steers`: it takes steers itself, by `run.steers()` and
    `run.interruptible()`; all others are called again with the steer in `run.messages`.
    """

    name: str
    function: AgentFunction
    restartable: bool = False
    takes_steers: bool = False

    @property
    def traits(self) -> AgentTraits:
        """What the registry has to know of it."""
        return AgentTraits(restartable=self.restartable, takes_steers=self.takes_steers)
