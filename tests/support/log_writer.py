"""A writer to a log, without a clock, a socket or a task: everything that happens is a step that a test takes.

A `Writer` is what the session actor of one node does, reduced to values: it collects work, decides a batch, appends
it, and meets conflicts, lost replies and lost data. `world.py` puts two of them over one log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from holdfast.protocol.control import Ack
from holdfast.protocol.errors import CommandError
from holdfast.server.registry import (
    AgentTraits,
    Ask,
    Context,
    Decision,
    Finish,
    Owner,
    Record,
    RunPhase,
    SessionState,
    Work,
    compact,
    compacted,
    decide,
    keys,
)
from tests.support.log_model import Author, Place
from tests.support.memory_log import Head, MemoryLog, through_json

AGENTS: Final = {"solo": AgentTraits(), "phoenix": AgentTraits(restartable=True)}


@dataclass(frozen=True)
class Rules:
    """The rules that a writer obeys besides what the registry decides; each can be switched off to see it matter."""

    repeat_unknown: bool = True
    """An append with a lost reply is repeated unchanged until its outcome is known."""
    read_head: bool = True
    """Replies that add nothing are decided on the store's head."""
    read_leases_again: bool = True
    """A retry looks at the leases as they are then."""
    open_epoch: bool = True
    """A store that lost data gets a new epoch."""
    compare_batch: bool = True
    """An append names the batch it goes onto, and not its number only."""


ALL_RULES: Final = Rules()


@dataclass
class Item:
    """A piece of work on its way, with the store's head when it arrived."""

    work: Work
    arrived: Place
    leases: frozenset[str] | None = None
    """As they were when it was first decided."""


@dataclass
class Flight:
    """A decided batch whose append is not known to have happened."""

    batch_id: str
    expected: Head
    records: list[Record]
    items: list[Item]
    replies: list[tuple[Item, Ack | CommandError]]
    unknown: bool = False
    """It was sent, and the reply was lost."""


@dataclass
class Agent:
    """What works on a run here."""

    owner: Owner
    asked: int = 0
    finishing: bool = False
    stopping: bool = False
    """Its run has ended; it has not stopped yet."""


@dataclass
class Writer:
    """One process that writes to the log."""

    name: str
    log: MemoryLog
    rules: Rules = ALL_RULES
    agents: Mapping[str, AgentTraits] = field(default_factory=lambda: AGENTS)
    accepting: bool = True
    pending: list[Item] = field(default_factory=list[Item])
    flight: Flight | None = None
    running: dict[str, Agent] = field(default_factory=dict[str, Agent])
    started: set[Owner] = field(default_factory=set[Owner])
    """All whose agent was ever started here."""
    fresh: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """Events for its readers; a snapshot among them replaces what they have."""
    told: list[tuple[Item, str, Ack | CommandError]] = field(default_factory=list[tuple[Item, str, Ack | CommandError]])
    """Replies that may be given now, with the epoch they were decided in."""
    batches: int = 0

    def __post_init__(self) -> None:
        self.state: SessionState = self.log.load()
        self.base: Head = self.log.head
        self._reconcile()

    def bring(self, work: Work) -> None:
        """Takes a piece of work in."""
        self.pending.append(Item(work, (self.log.epoch, self.log.seq)))

    def context(self, unobserved_since: int | None = None) -> Context:
        """What deciding may look at, as it is now."""
        return Context(
            now=self.log.now,
            node=self.name,
            agents=self.agents,
            accepting=self.accepting,
            live_nodes=frozenset(self.log.live),
            unobserved_since=unobserved_since,
        )

    def decide(self, unobserved_since: int | None = None) -> None:
        """Decides all that is pending, commands first; does nothing while a batch is on its way."""
        if self.flight is not None or not self.pending:
            return
        items = sorted(self.pending, key=lambda item: not isinstance(item.work, Ask))
        replies, records = self._decide(items, self.context(unobserved_since))
        if not records and self.rules.read_head and self.log.head != self.base:
            self.catch_up()
            replies, records = self._decide(items, self.context(unobserved_since))
        self.pending = []
        if records:
            self.batches += 1
            self.flight = Flight(f"{self.name}.{self.batches}", self.base, records, items, replies)
        else:
            self._tell(replies)
            self._reconcile()

    def _decide(
        self, items: Iterable[Item], context: Context
    ) -> tuple[list[tuple[Item, Ack | CommandError]], list[Record]]:
        replies: list[tuple[Item, Ack | CommandError]] = []
        records: list[Record] = []
        for item in items:
            if item.leases is None or self.rules.read_leases_again:
                item.leases = context.live_nodes
            # What this very batch starts is worked on as soon as it is in the log: a sweep in it is not to end it.
            starting = {record.event["runId"] for record in records if record.event["type"] == "run.started"}
            known = replace(
                context,
                live_nodes=item.leases,
                working=frozenset(self.running) | starting,
                archive=self._archive(item.work),
            )
            try:
                decision: Decision = decide(self.state, item.work, known)
            except CommandError as error:
                replies.append((item, error))
                continue
            records += decision.records
            if decision.reply is not None:
                replies.append((item, decision.reply))
        return replies, records

    def _archive(self, work: Work) -> dict[str, Any]:
        if not isinstance(work, Ask):
            return {}
        return {key: self.log.records[key] for key in keys(self.state, work) if key in self.log.records}

    def append(self, *, reply_lost: bool = False) -> None:
        """Sends the decided batch, or sends it again."""
        flight = self.flight
        if flight is None:
            return
        expected = flight.expected
        if not self.rules.compare_batch and (expected.epoch, expected.seq) == (self.log.epoch, self.log.seq):
            expected = self.log.head
        added = self.log.append(expected, flight.batch_id, flight.records)
        if reply_lost and self.rules.repeat_unknown:
            flight.unknown = True
        elif added and not reply_lost:
            self.flight = None
            self.base = self.log.head
            self.fresh += through_json([record.event for record in flight.records])
            self._tell(flight.replies)
            self._reconcile()
        elif flight.unknown and self.log.holds(flight.batch_id):
            self.flight = None
            self.catch_up()
            self._tell(flight.replies)
        else:
            self.flight = None
            self.pending = [*flight.items, *self.pending]
            self.catch_up()

    def _tell(self, replies: Sequence[tuple[Item, Ack | CommandError]]) -> None:
        self.told += [(item, self.state.epoch, reply) for item, reply in replies]

    def catch_up(self) -> None:
        """Folds what the log has and this writer had not; a log that lost what it had gets a new epoch."""
        assert self.flight is None, "nothing is folded under a batch that is on its way"
        log, before = self.log, self.base
        lost = bool(before.batch_id) and not log.holds(before.batch_id)
        if lost and self.rules.open_epoch:
            opened = log.new_epoch(log.head, f"e{len(log.opened) + 2}", max(before.seq, log.seq))
            assert opened, "steps are atomic here: nobody else was faster"
        self.state, self.base = log.load(), log.head
        if before.epoch != log.epoch:
            self.fresh.append(log.snapshot(self.state, reset=True))
        else:
            self.fresh += [
                record.event
                for batch in log.batches
                if batch.epoch == log.epoch
                for record in batch.records
                if record.event["seq"] > before.seq
            ]
        self._reconcile()

    def refresh(self) -> None:
        """A wake-up, or the periodic look at the head."""
        if self.flight is None and self.log.head != self.base:
            self.catch_up()

    def _reconcile(self) -> None:
        """Starts the agents of runs that the log has as running here, and stops those of all others.

        An agent that was stopped never goes on, even if the log that stopped it is lost: its run is then nobody's.
        """
        mine = {run.run_id: run for run in self.state.runs.values() if run.node == self.name}
        for run_id, agent in list(self.running.items()):
            run = mine.get(run_id)
            gone = run is None or run.attempt != agent.owner.attempt or run.phase is RunPhase.CLOSED
            if run is None or gone or (run.active and agent.stopping):
                del self.running[run_id]
            else:
                agent.stopping = run.phase is RunPhase.STOPPING
                agent.finishing = agent.finishing and self._on_its_way(agent.owner)
        for run_id, run in mine.items():
            owner = Owner(run_id, self.name, run.attempt)
            if run.active and owner not in self.started:
                self.started.add(owner)
                self.running[run_id] = Agent(owner)

    def _on_its_way(self, owner: Owner) -> bool:
        return any(isinstance(item.work, Finish) and item.work.owner == owner for item in self.pending)

    def compact(self, *, replay_window_ms: int) -> None:
        """Writes a checkpoint of what is known to be in the log."""
        self.refresh()
        if self.flight is not None or self.base != self.log.head:
            return
        compaction = compact(self.state, now=self.log.now, replay_window_ms=replay_window_ms)
        if self.log.compact(self.state.epoch, compaction):
            compacted(self.state, compaction)


def author_of(owner: Owner) -> Author:
    """The owner as the model names it."""
    return Author(owner.run_id, owner.node, owner.attempt)
