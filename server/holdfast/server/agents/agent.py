"""What an agent is: a function of a `Run`, and what the server may do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from holdfast.server.agents.run import Run, say_all
from holdfast.server.registry import AgentTraits
from holdfast.server.session.ports import RunPort

AgentFunction: TypeAlias = Callable[[Run], AsyncIterator[str] | Awaitable[None]]
"""Either an async generator of strings, which are the message's text, or a coroutine function that uses the run."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A named agent.

    `restartable`: another node may call it again for a run whose node has died, with its message so far in
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

    def call(self, run: RunPort) -> tuple[Run, Coroutine[Any, Any, None]]:
        """One call of it for this run, and what the call's task drives."""
        held = Run(run)
        return held, self._work(held, run)

    async def _work(self, run: Run, port: RunPort) -> None:
        result = self.function(run)
        if isinstance(result, AsyncIterator):
            await say_all(run, port, result)
        else:
            await result
