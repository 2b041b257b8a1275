"""Work that waits for a session's actor, the batch it is deciding, and who is told what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import structlog

from holdfast.protocol.control import Ack
from holdfast.protocol.errors import CommandError
from holdfast.server.registry import Ask, Decision, Finish, Settle, Stop, Sweep, Upkeep
from holdfast.server.session.ports import Reply

Chore: TypeAlias = Finish | Settle | Stop | Sweep | Upkeep
"""Work of the server's own."""
_log = structlog.get_logger("holdfast.session")


@dataclass(slots=True)
class Item:
    """A command or a chore that waits, and what became of it."""

    work: Ask | Chore
    arrived: float
    reply: Reply | None = None
    halted: bool = False
    """Whether an agent was stopped for this cancel already: it must be decided, whatever its sender was told."""
    left_out: bool = False
    """Whether deciding it failed: it is not decided again."""
    decision: Decision | None = None
    error: CommandError | None = None

    def tell(self) -> None:
        """Tells whoever waits for it, once."""
        if self.error is not None:
            self.refuse(self.error)
        elif self.decision is not None and self.decision.reply is not None:
            self._reply(self.decision.reply)

    def refuse(self, error: CommandError) -> None:
        """Tells the sender of a command that it is refused, unless it was told something already."""
        self._reply(error)

    def _reply(self, outcome: Ack | CommandError) -> None:
        if self.reply is None:
            return
        reply, self.reply = self.reply, None
        try:
            reply(outcome)
        except Exception:  # it is one connection's, and the others still have to be told
            _log.exception("replying failed", work=type(self.work).__name__)


class Mailbox:
    """Commands and chores that wait, in their order, and the batch that was taken of them."""

    def __init__(self) -> None:
        self.batch: list[Item] = []
        # Lists, not deques: an empty deque takes 600 bytes, and most sessions are idle.
        self._commands: list[Item] = []
        self._chores: list[Item] = []

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._commands or self._chores)

    @property
    def pending(self) -> bool:
        """Whether something waits or is being decided."""
        return bool(self._commands or self._chores or self.batch)

    def command(self, ask: Ask, arrived: float, reply: Reply, *, halted: bool = False) -> None:
        """Takes in a command."""
        self._commands.append(Item(ask, arrived, reply=reply, halted=halted))

    def chore(self, work: Chore, arrived: float) -> None:
        """Takes in work of the server's own."""
        self._chores.append(Item(work, arrived))

    def take(self) -> None:
        """Moves what waits into the batch: commands first, so that a cancel never waits behind chunks."""
        self.batch.extend(self._commands)
        self._commands.clear()
        self.batch.extend(self._chores)
        self._chores.clear()

    def oldest_waiting(self) -> float | None:
        """When the command arrived that has waited longest for its reply."""
        return min((item.arrived for item in [*self.batch, *self._commands] if item.reply is not None), default=None)

    def refuse_older(self, than: float, error: CommandError) -> None:
        """Refuses the commands that arrived at `than` or before. What is in the batch may be in the log yet.

        Of those that wait only cancels that have stopped an agent stay: at most one for each agent.
        """
        for item in [*self.batch, *self._commands]:
            if item.arrived <= than:
                item.refuse(error)
        self._commands = [item for item in self._commands if item.reply is not None or item.halted]

    def refuse_all(self, error: CommandError) -> None:
        """Refuses every command that has had no reply, and forgets everything: nobody decides it any more."""
        items = [*self.batch, *self._commands]
        self.batch, self._commands, self._chores = [], [], []
        for item in items:
            item.refuse(error)
