"""The one way into a session: what waits for it, in one order, and the batch that was taken of it.

Commands come first, so that a cancel never waits behind chunks; then work of the server's own, then what agents have
said; reads are told behind what was taken with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from holdfast.protocol.control import Ack
from holdfast.protocol.errors import CommandError, HoldfastError
from holdfast.server.registry import Ask, Decision, Finish, Settle, Stop, Sweep, Upkeep
from holdfast.server.session.ports import Output, Reply, Worker

Chore: TypeAlias = Finish | Settle | Stop | Sweep | Upkeep
"""Work of the server's own."""
Read: TypeAlias = Callable[[HoldfastError | None], None]
"""Told, once, when everything before it is in the log and has been written to those who are live; or why not."""
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


@dataclass(slots=True)
class Mail:
    """What is decided and appended together."""

    items: Sequence[Item] = ()
    taken: Sequence[tuple[Worker, list[Output]]] = ()
    """What agents have said, by whom."""
    reads: Sequence[Read] = ()

    def __bool__(self) -> bool:
        return bool(self.items or self.taken or self.reads)


class Mailbox:
    """What waits, and the `batch` that is being decided. Nothing leaves it without being told what became of it."""

    def __init__(self) -> None:
        self.batch = Mail()
        # Lists, not deques: an empty deque takes 600 bytes, and most sessions are idle.
        self._commands: list[Item] = []
        self._chores: list[Item] = []
        self._ready: dict[str, Worker] = {}
        self._reads: dict[Read, None] = {}

    def __bool__(self) -> bool:
        return bool(self._ready or self._commands or self._chores or self._reads or self.batch)

    @property
    def pending(self) -> bool:
        """Whether commands, chores or output wait or are being decided."""
        return bool(self._commands or self._chores or self._ready or self.batch.items or self.batch.taken)

    @property
    def busy(self) -> bool:
        """Whether anything waits or is being done."""
        return bool(self.pending or self._reads or self.batch)

    @property
    def commands(self) -> int:
        """How many commands and chores wait or are being decided."""
        return len(self._commands) + len(self._chores) + len(self.batch.items)

    @property
    def reads(self) -> int:
        """How many reads wait."""
        return len(self._reads) + len(self.batch.reads)

    def command(self, ask: Ask, arrived: float, reply: Reply, *, halted: bool = False) -> None:
        """Takes in a command."""
        self._commands.append(Item(ask, arrived, reply=reply, halted=halted))

    def chore(self, work: Chore, arrived: float) -> None:
        """Takes in work of the server's own."""
        self._chores.append(Item(work, arrived))

    def ready(self, worker: Worker) -> None:
        """A worker has output: it is taken when its turn comes."""
        self._ready[worker.owner.run_id] = worker

    def read(self, read: Read) -> None:
        """Takes in a read."""
        self._reads[read] = None

    def forget(self, read: Read) -> None:
        """Whoever wanted to read has gone."""
        self._reads.pop(read, None)

    def take(self, *, held: bool) -> Mail:
        """Moves what waits into the batch, which must be done; but for what agents have said while it is `held`."""
        mail = self.batch = Mail()
        if self._commands or self._chores:
            mail.items = [*self._commands, *self._chores]
            self._commands, self._chores = [], []
        if self._ready and not held:
            ready, self._ready = self._ready, {}
            mail.taken = [(worker, worker.take()) for worker in ready.values()]
        if self._reads:
            mail.reads, self._reads = [*self._reads], {}
        return mail

    def done(self) -> None:
        """The batch is done, and everybody in it was told."""
        self.batch = Mail()

    def oldest_waiting(self) -> float | None:
        """When the command arrived that has waited longest for its reply."""
        waiting = self._every_command()
        return min((item.arrived for item in waiting if item.reply is not None), default=None)

    def refuse_older(self, than: float, error: CommandError) -> None:
        """Refuses the commands that arrived at `than` or before. What is in the batch may be in the log yet.

        Of those that wait only cancels that have stopped an agent stay: at most one for each agent.
        """
        for item in self._every_command():
            if item.arrived <= than:
                item.refuse(error)
        self._commands = [item for item in self._commands if item.reply is not None or item.halted]

    def refuse_all(self, error: CommandError, failed: HoldfastError) -> None:
        """Refuses every command that has no reply and every read, and forgets everything: nobody decides it."""
        items, reads = [*self._every_command()], [*self.batch.reads, *self._reads]
        self.batch = Mail()
        self._commands, self._chores, self._ready, self._reads = [], [], {}, {}
        for item in items:
            item.refuse(error)
        for read in reads:
            read(failed)

    def _every_command(self) -> Iterable[Item]:
        return [*self.batch.items, *self._commands]
