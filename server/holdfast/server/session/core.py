"""A session without I/O: what came in and the time go in, what to ask of the store and what to do comes out.

Theory of operation. A session is the fold of a log. The core holds the state that is exactly the log up to `head`, and
the batch that it decides on it. There is one thing at a time that it waits for, a *question* to the store; while it
does, everything else waits in the mailbox. Its driver (the actor) does this, over and over:

    while (question := core.next(now, steady)) is not None:
        landed = core.<what the question names>(the store's answer)
        if landed is not None:
            carry it out: write, tell, start and stop

`next` takes a batch out of the mailbox and decides it: on the state itself where the batch holds nothing but text that
goes on (see `registry/text.py`), on a copy otherwise. The state moves on when the append has been accepted, and only
then: one that was not leaves no trace. On a conflict the core asks for what it missed, folds that on the state as it
was, and decides the same batch again. Only where the store has lost what it had accepted, or has trimmed what was
missed, is the state folded anew from the beginning.

    IDLE ──► LOOKING        the batch needs records, leases or presence to be decided by       looked
         ──► APPENDING      it adds events                                                     appended
         ──► CHECKING       it adds none, or a reader came: is the head we know still the head?  checked
    APPENDING, CHECKING ──► CATCHING_UP    others have appended                                 caught_up
    CATCHING_UP         ──► OPENING        what was missed is not to be had                     opened
                        ──► RENUMBERING    the store has lost what it had accepted: new epoch   renumbered
    OPENING             ──► RENUMBERING

A question is repeated by the driver, unchanged, until it is answered. What is not known then is whether an append
happened whose answer was lost: `appended` is told so (`sure=False`), and the batch is looked for in the log.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias, cast

from holdfast.protocol.codec import MSGPACK_CODEC
from holdfast.protocol.commands import Answer as AnswerCommand
from holdfast.protocol.errors import CommandError
from holdfast.protocol.events import Event, Failure
from holdfast.server.registry import (
    AgentTraits,
    Ask,
    Chunk,
    Compaction,
    Context,
    Due,
    Finish,
    OpenRequest,
    Record,
    RetractRequest,
    RunLimits,
    RunPhase,
    SessionState,
    Settle,
    SteadyDues,
    Sweep,
    TakeSteers,
    Upkeep,
    Work,
    compacted,
    decide,
    due_at,
    due_times,
    fold,
    keys,
)
from holdfast.server.registry.effects import Drop, Effect, Start, abandonable, effects
from holdfast.server.registry.text import numbered, take_in
from holdfast.server.session.mailbox import Item, Mail, Mailbox
from holdfast.server.session.ports import Output
from holdfast.server.session.records import decode_batch, encode_batch
from holdfast.server.store import (
    NO_LOG,
    NOTHING_OWED,
    Append,
    Appended,
    Batch,
    Conflict,
    Head,
    LiveNode,
    Log,
    Owed,
    Tail,
)

_LONGEST_WAIT_MS: Final = 86_400_000
_PRESENCE_CHECK_MS: Final = 5_000
_HEARD: Final = 64
"""Appends of others that may wait to be folded; beyond them the store is asked."""
_NOTHING: Final[frozenset[type[Work]]] = frozenset()


# What is asked of the store


@dataclass(frozen=True, slots=True)
class Open:
    """All that the session is folded from."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the batch is decided by besides the state."""

    keys: Sequence[str]
    """Of records of the archive."""
    leases: bool
    presence: bool


@dataclass(frozen=True, slots=True)
class Check:
    """Where the log ends now."""


@dataclass(frozen=True, slots=True)
class CatchUp:
    """The batches from the one at `head` on: as many as one read gives."""

    head: Head


@dataclass(frozen=True, slots=True)
class Renumber:
    """A new epoch behind `expected`, which has lost something."""

    expected: Head
    epoch: str
    seq: int


Question: TypeAlias = Open | Look | Append | Check | CatchUp | Renumber


@dataclass(frozen=True, slots=True)
class Found:
    """What `Look` asked for."""

    archive: Mapping[str, Any] = field(default_factory=lambda: {})
    live: Mapping[str, LiveNode] = field(default_factory=lambda: {})
    """Nodes whose lease is in force."""
    unobserved_since: int | None = None


class Stage(Enum):
    """What the session waits for."""

    IDLE = "idle"
    OPENING = "opening"
    LOOKING = "looking"
    APPENDING = "appending"
    CHECKING = "checking"
    CATCHING_UP = "catching up"
    RENUMBERING = "renumbering"

    __hash__ = object.__hash__


_STAGE_OF: Final[Mapping[type[Question], Stage]] = {
    Open: Stage.OPENING,
    Look: Stage.LOOKING,
    Append: Stage.APPENDING,
    Check: Stage.CHECKING,
    CatchUp: Stage.CATCHING_UP,
    Renumber: Stage.RENUMBERING,
}


# What is to be done


@dataclass(slots=True)
class Landed:
    """What has come into the log, and what is to be done about it, in the order of the fields."""

    events: list[Event] = field(default_factory=list[Event])
    encoded: list[bytes] = field(default_factory=list[bytes])
    """The events as msgpack."""
    lifecycle: bool = False
    """Whether some of them are not chunks."""
    opened: bool = False
    """Whether the state was folded anew: who works here is reconciled with it."""
    reset: bool | None = None
    """Whether every reader needs a snapshot: one that announces a new epoch, or (False) none."""
    effects: Sequence[Effect] = ()
    mail: Mail | None = None
    """The batch is done: everybody in it is to be told."""
    unobserved_since: int | None = None
    """As it was read for the upkeep of the batch."""
    contended: bool = False
    """Another node has lost a race against this append."""


class Here(Protocol):
    """What a session is decided by that is no part of its log: this node, as it is now."""

    @property
    def traits(self) -> Mapping[str, AgentTraits]:
        """The agents that this node can run; the first is the default."""
        ...

    @property
    def accepting(self) -> bool:
        """False while draining."""
        ...

    @property
    def working(self) -> Collection[str]:
        """Runs of the session that somebody works on here."""
        ...

    @property
    def watched(self) -> bool:
        """Whether somebody watches the session through this node."""
        ...

    @property
    def left_in_order(self) -> bool:
        """Whether whoever had the store before left it in order."""
        ...


@dataclass(slots=True)
class _Flight:
    """What is on its way into the log."""

    batch: Batch
    events: list[Event]
    encoded: list[bytes]
    draft: SessionState | None
    """The state behind it; None where the events are text that is taken in when it has landed."""
    owed: Owed = NOTHING_OWED
    """Behind it."""


class Core:
    """One session. `shared`: other nodes write to its log too, so that the head that is known may not be the head."""

    def __init__(
        self,
        session: str,
        node: str,
        here: Here,
        *,
        shared: bool,
        limits: RunLimits,
        batch_prefix: str,
        name_epoch: Callable[[], str],
        failed: Callable[[Work, Exception], None],
    ) -> None:
        self.state = SessionState("")
        """The fold of exactly the log up to `head`."""
        self.head: Head = NO_LOG
        self.mailbox = Mailbox()
        self.stage = Stage.IDLE
        self.held_until = 0.0
        """What agents say is held back until this steady time, so that another node gets a word in."""
        self.closing = False
        """Nothing is held back any more."""
        self._session = session
        self._node = node
        self._here = here
        self._shared = shared
        self._limits = limits
        # A batch's name is asked for at every append: randomness for each would be a tenth of what a chunk costs.
        self._batch_prefix = batch_prefix
        self._batch_numbers = itertools.count(1)
        self.name_epoch = name_epoch
        self._failed = failed
        self._ended_epochs: set[str] = set()
        """Epochs that were replaced while this node had the session open: one for every time its store lost data."""
        self._then: Question | None = Open()
        """What is asked next, whatever else waits."""
        self._found: Found | None = None
        self._fresh = False
        """Whether the head is known to be the head since the batch was taken."""
        self._check = False
        """Whether the head is to be asked for."""
        self._flight: _Flight | None = None
        self._sure = True
        """Whether it is known that the flight's append, which met a conflict, had not happened before."""
        self._consequences: list[Effect] = []
        """Effects of what could not be decided."""
        self._dues = SteadyDues()
        self._owed = NOTHING_OWED
        """What is owed in the session, as the index has it: the same object until it changes."""
        self._heard: list[tuple[Head, Head, Batch]] = []
        """What others have appended, as it was heard of: the head before, the head behind, and what is between."""

    # Going on

    def moved(self) -> None:
        """Others have appended, or may have: the head is asked for before anything that adds nothing is answered."""
        self._check = self._shared

    def heard(self, before: Head, head: Head, batch: Batch | None) -> None:
        """Another node has appended `batch` behind `before`; None where only that it did is known."""
        if batch is None or len(self._heard) >= _HEARD:
            self._heard.clear()
            self.moved()
        else:
            self._heard.append((before, head, batch))

    @property
    def loaded(self) -> bool:
        """Whether the state has been folded from the store."""
        return self.head is not NO_LOG

    @property
    def has_mail(self) -> bool:
        """Whether `next` may have something to do."""
        return bool(self.mailbox or self._then or self._check or self._heard)

    def next(self, now: int, steady: float) -> Question | Landed | None:
        """What the store is to be asked, or what is to be done without asking it; None where nothing waits.

        `now` are milliseconds since the epoch, `steady` seconds of a clock that nobody sets.
        """
        assert self.stage is Stage.IDLE, f"the session is {self.stage.value}"
        then = self._then
        if then is not None:
            self._then = None
            return self._ask(then)
        if self._heard:
            landed = self._follow_heard()
            if landed is not None:
                return landed
        mail = self.mailbox.batch
        if not mail:
            mail = self.mailbox.take(held=steady < self.held_until and not self.closing)
            self._found, self._fresh = None, not self._shared
        if mail.items:
            return self._next_of_commands(mail, now, steady)
        if mail.taken:
            flight = self._text(mail, now) or self._decided(mail, self._context(_NOTHING, now, steady))
            if flight is not None:
                return self._take_off(flight)
        if self._check:
            return self._ask(Check())
        return self._done(Landed()) if mail else None

    def _next_of_commands(self, mail: Mail, now: int, steady: float) -> Question | Landed:
        kinds = {type(item.work) for item in mail.items}
        if self._found is None:
            look = self._wanted(mail, kinds)
            if look is not None:
                return self._ask(look)
            self._found = Found()
        flight = self._decided(mail, self._context(kinds, now, steady))
        if flight is not None:
            return self._take_off(flight)
        # Answers that add nothing bypass compare-and-append: they need a head read after the command came.
        if not self._fresh and (self._check or Ask in kinds):
            return self._ask(Check())
        return self._done(Landed())

    def _ask(self, question: Question) -> Question:
        self.stage = _STAGE_OF[type(question)]
        if not isinstance(question, Look):
            self._check = False  # whoever asks for it from now on wants to know it as it is then
        return question

    def _answered(self, stage: Stage) -> None:
        assert self.stage is stage, f"the session is {self.stage.value}, and not {stage.value}"
        self.stage = Stage.IDLE

    def _take_off(self, flight: _Flight) -> Append:
        self._flight = flight
        self.stage, self._check = Stage.APPENDING, False
        flight.owed = self._owed if flight.draft is None else self._owed_in(flight.draft)
        return Append(self._session, self.head, flight.batch, self._node, flight.owed)

    def _owed_in(self, state: SessionState) -> Owed:
        now = owed(state)
        return self._owed if now == self._owed else now

    # The store's answers

    def looked(self, found: Found) -> None:
        """What the batch is decided by."""
        self._answered(Stage.LOOKING)
        self._found = found

    def appended(self, result: Appended | Conflict, *, sure: bool = True) -> Landed | None:
        """The append was accepted, or others were first. Not `sure`: an earlier try of it may have been accepted."""
        self._answered(Stage.APPENDING)
        flight = self._flight
        assert flight is not None, "an append is answered"
        if isinstance(result, Appended):
            if flight.draft is None:
                take_in(self.state, flight.events)
                self._flight, self._fresh = None, True
                landed = Landed(flight.events, flight.encoded)
            else:
                landed = self._land(flight, Landed(), set(self._here.working))
            self.head = result.head
            landed.contended = result.contended
            return self._done(landed)
        self._sure = sure
        if not result.batches:
            self._then = CatchUp(self.head)
            return None
        return self._follow(Tail(result.head, self.head.seq - 1, result.batches))

    def checked(self, head: Head | None) -> None:
        """The log ends at `head` now, or there is none."""
        self._answered(Stage.CHECKING)
        if head == self.head:
            self._fresh = True
        else:
            self._then = CatchUp(self.head)

    def caught_up(self, tail: Tail) -> Landed | None:
        """What came behind our head: the batches from the one at it on."""
        self._answered(Stage.CATCHING_UP)
        return self._follow(tail)

    def _follow(self, tail: Tail) -> Landed | None:
        if tail.head.epoch != self.head.epoch:
            self._then = Open()
            return None
        if self._lost(tail):
            self._renumber(tail.head)
            return None
        landed, working = Landed(), set(self._here.working)
        for batch in tail.batches:
            if batch.last_seq <= self.head.seq:
                continue
            if batch.first_seq != self.head.seq + 1:
                self._then = Open()  # what is between was trimmed
                break
            self._take_missed(batch, landed, working)
        if self._then is None and self.head != tail.head:
            if tail.batches and tail.batches[-1].last_seq >= self.head.seq:
                self._then = CatchUp(self.head)
            else:
                self._then = Open()
        if self._then is None:
            self._flight, self._fresh, self._found = None, True, None
        return landed if landed.events else None

    def _take_missed(self, batch: Batch, landed: Landed, working: set[str]) -> None:
        flight = self._flight
        if flight is not None and not self._sure and batch.batch_id == flight.batch.batch_id:
            # Ours was accepted, and built upon: what is in it need not be decided again.
            self._done(self._land(flight, landed, working))
            return
        records = decode_batch(batch.payload)
        for record in records:
            fold(self.state, record)
        events = [record.event for record in records]
        self.head = Head(self.head.epoch, batch.last_seq, batch.batch_id)
        landed.events += events
        if len(records) == 1 and records[0].note is None:
            landed.encoded.append(batch.payload)  # nearly always: a chunk, as it was encoded there
        else:
            landed.encoded += [MSGPACK_CODEC.encode(event) for event in events]
        if any(event["type"] != "run.chunk" for event in events):
            landed.lifecycle = True
            self._owed = self._owed_in(self.state)
            landed.effects = [*landed.effects, *effects(self.state, events, node=self._node, working=working)]

    def _follow_heard(self) -> Landed | None:
        """What was heard of is folded where it lies exactly behind our head; everything else is asked for."""
        heard, self._heard = self._heard, []
        landed, working = Landed(), set(self._here.working)
        for before, head, batch in heard:
            if before == self.head:
                self._take_missed(batch, landed, working)
                self._found = None
            elif head.epoch != self.head.epoch or head.seq > self.head.seq:
                self._check = True
        return landed if landed.events else None

    def _lost(self, tail: Tail) -> bool:
        """Whether a log of our epoch lacks what this node has folded.

        It may have been rolled back, or have been written on by others after it was rolled back: the batch at our head
        is then another one.
        """
        if tail.head.seq < self.head.seq:
            return True
        if tail.head == self.head or self.head.seq == 0 or tail.floor >= self.head.seq or not tail.batches:
            return False
        at_head = tail.batches[0]
        # Where no batch holds our head it is the seq that the epoch began at.
        return at_head.first_seq <= self.head.seq and at_head.batch_id != self.head.batch_id

    def _went_back(self, now: Head) -> bool:
        """Whether the log stands before what this node has folded, or in an epoch that it has seen end."""
        return now.epoch in self._ended_epochs or now.seq < self.head.seq

    def opened(self, log: Log, state: SessionState) -> Landed | None:
        """All there is: `state` is the fold of `log`."""
        self._answered(Stage.OPENING)
        known, now = self.head, log.head
        if log.suspect:
            self._then = Renumber(now, self.name_epoch(), now.seq)
            return None
        if known is not NO_LOG and self._went_back(now):
            self._renumber(now)
            return None
        if known is not NO_LOG and now.epoch != known.epoch:
            self._ended_epochs.add(known.epoch)
        flight = self._flight
        self.state, self.head, self._owed = state, now, owed(state)
        self._flight, self._fresh, self._found = None, True, None
        landed = Landed(opened=True, lifecycle=True, reset=None if known is NO_LOG else now.epoch != known.epoch)
        if flight is None or self._sure or all(batch.batch_id != flight.batch.batch_id for batch in log.batches):
            return landed
        # Ours was accepted before that. What it means to those who work here they are told by being reconciled.
        found = effects(state, flight.events, node=self._node, working=set(self._here.working))
        landed.effects = [effect for effect in found if isinstance(effect, Start)]
        return self._done(landed)

    def _renumber(self, expected: Head) -> None:
        self._then = Renumber(expected, self.name_epoch(), max(self.head.seq, expected.seq))

    def renumbered(self) -> None:
        """A new epoch was begun, unless somebody else was first."""
        self._answered(Stage.RENUMBERING)
        self._then = Open()

    # Landing

    def _land(self, flight: _Flight, landed: Landed, working: set[str]) -> Landed:
        """The flight is in the log: the state moves on."""
        if flight.draft is None:
            take_in(self.state, flight.events)
        else:
            self.state = flight.draft
            self._owed = flight.owed
            found = effects(self.state, flight.events, node=self._node, working=working)
            landed.effects = [*landed.effects, *found]
            landed.lifecycle = landed.lifecycle or any(event["type"] != "run.chunk" for event in flight.events)
        self.head = Head(self.head.epoch, flight.batch.last_seq, flight.batch.batch_id)
        landed.events += flight.events
        landed.encoded += flight.encoded
        self._flight, self._fresh = None, True
        return landed

    def _done(self, landed: Landed) -> Landed:
        landed.mail = self.mailbox.batch
        self.mailbox.done()
        if self._found is not None:
            landed.unobserved_since = self._found.unobserved_since
        if self._consequences:
            landed.effects = [*landed.effects, *self._consequences]
            self._consequences = []
        return landed

    def compacted(self, compaction: Compaction) -> None:
        """The store has taken over what has ended: it leaves the state."""
        compacted(self.state, compaction)
        if self._flight is not None and self._flight.draft is not None:
            compacted(self._flight.draft, compaction)

    # Deciding

    def _text(self, mail: Mail, now: int) -> _Flight | None:
        """The batch where it is nothing but text that goes on: decided without a copy of the state."""
        events = numbered(self.state, mail.taken, now)
        if not events:
            return None
        encode = MSGPACK_CODEC.encode
        try:
            encoded = [encode(event) for event in events]
        except Exception:  # deciding one by one finds which it is
            return None
        payload = encoded[0] if len(encoded) == 1 else b"".join(encoded)
        batch = Batch(self._name_batch(), events[0]["seq"], events[-1]["seq"], payload)
        return _Flight(batch, cast("list[Event]", events), encoded, None)

    def _decided(self, mail: Mail, context: Context) -> _Flight | None:
        """The batch as it is decided; None where it adds nothing.

        What cannot be decided or encoded is taken out, so that it fails nobody else; the others are decided again.
        """
        while True:
            draft = self.state.copy()
            records: list[Record] = []
            encoded: list[bytes] = []
            item: Item | Output | None = None
            try:
                for item in mail.items:
                    if not item.left_out:
                        self._decide_item(draft, item, context, records, encoded)
                for _, outputs in mail.taken:
                    for item in outputs:
                        item.decision = decide(draft, item.work, context)
                        records.extend(item.decision.records)
                        encoded.extend(MSGPACK_CODEC.encode(record.event) for record in item.decision.records)
            except Exception as error:
                assert item is not None, "only deciding a piece of work fails"
                self._failed(item.work, error)
                self._leave_out(mail, item)
                continue
            if not records:
                return None
            events = [record.event for record in records]
            batch = Batch(self._name_batch(), events[0]["seq"], events[-1]["seq"], encode_batch(records, encoded))
            return _Flight(batch, events, encoded, draft)

    def _decide_item(
        self, draft: SessionState, item: Item, context: Context, records: list[Record], encoded: list[bytes]
    ) -> None:
        item.decision, item.error = None, None
        if isinstance(item.work, Sweep):
            # What this very batch starts is worked on as soon as it is in the log, and what it settles never was:
            # neither is anybody's leavings.
            known = {record.event["runId"] for record in records if record.event["type"] == "run.started"}
            settles = [other.work for other in self.mailbox.batch.items if isinstance(other.work, Settle)]
            known.update(settle.owner.run_id for settle in settles)
            context = replace(context, working=frozenset(self._here.working) | known)
        try:
            item.decision = decide(draft, item.work, context)
        except CommandError as error:
            item.error = error
            return
        records.extend(item.decision.records)
        encoded.extend(MSGPACK_CODEC.encode(record.event) for record in item.decision.records)

    def _leave_out(self, mail: Mail, item: Item | Output) -> None:
        if isinstance(item, Item):
            item.left_out = True  # it stays in the batch: the agent that was halted for it is seen to behind it
            item.error = CommandError("internal", "the server failed to decide this; its log has the reason")
            return
        worker, outputs = next((worker, outputs) for worker, outputs in mail.taken if item in outputs)
        outputs.remove(item)
        item.decision = None
        item.tell()
        if isinstance(item.work, (Chunk, OpenRequest, RetractRequest, TakeSteers)):
            # Its agent believes that this is in the log: the run cannot go on as if it were.
            failure: Failure = {"code": "internal", "message": "The server failed. Its log has the reason."}
            outputs.append(Output(Finish(item.work.owner, "failed", error=failure)))
        else:
            # Not even its end can be written: the sweep finds a run that nobody works on.
            self._consequences += [Drop(worker.owner.run_id), Sweep()]

    def _name_batch(self) -> str:
        return f"{self._batch_prefix}{next(self._batch_numbers)}"

    def _wanted(self, mail: Mail, kinds: Set[type[Work]]) -> Look | None:
        """What is to be looked up before the batch can be decided."""
        wanted: list[str] = []
        if self.state.archived and Ask in kinds:
            wanted = [key for item in mail.items if isinstance(item.work, Ask) for key in keys(self.state, item.work)]
        leases = Sweep in kinds
        presence = Upkeep in kinds and not self._here.watched and abandonable(self.state)
        return Look(wanted, leases, presence) if wanted or leases or presence else None

    def _context(self, kinds: Set[type[Work]], now: int, steady: float) -> Context:
        """What a batch with work of these kinds is decided by."""
        here = self._here
        context = Context(now, self._node, here.traits, here.accepting, limits=self._limits)
        found = self._found
        if found is None:
            return context
        context.archive = found.archive
        if Sweep in kinds:
            live = found.live
            context.live_nodes = frozenset(live)
            others = [says.agents for node, says in live.items() if node != self._node and says.accepting]
            context.elsewhere = frozenset[str]().union(*others)
            context.working = frozenset(here.working)
            context.alone = not self._shared
            context.left_in_order = here.left_in_order
        if Upkeep in kinds:
            context.unobserved_since = None if here.watched else found.unobserved_since
        if Upkeep in kinds or any(_is_answer(item) for item in self.mailbox.batch.items):
            context.dues = self.dues(now, steady)
        return context

    # Time

    def dues(self, now: int, steady: float) -> dict[Due, int]:
        """When what is open expires, by a clock that stands at `now`."""
        return self._dues.adjusted(due_times(self.state), now=now, steady=round(steady * 1000))

    def wake_after_ms(self, now: int, steady: float, unobserved_since: int | None) -> int | None:
        """After how long an `Upkeep` has something to do; None where nothing waits for its time."""
        due = due_at(self.state, unobserved_since, self.dues(now, steady))
        if unobserved_since is None and not self._here.watched and abandonable(self.state):
            # Somebody watches through another node, and nobody will say when that ends.
            due = now + _PRESENCE_CHECK_MS if due is None else min(due, now + _PRESENCE_CHECK_MS)
        # A wait of more than a day is cut, and looked at again.
        return None if due is None else min(max(0, due - now), _LONGEST_WAIT_MS)


def owed(state: SessionState) -> Owed:
    """What the store's index is to say of a session."""
    owners = frozenset(run.node for run in state.runs.values() if run.active or run.phase is RunPhase.STOPPING)
    return Owed(owners, bool(state.queue) and state.main is None, min(due_times(state).values(), default=None))


def _is_answer(item: Item) -> bool:
    return isinstance(item.work, Ask) and isinstance(item.work.command, AnswerCommand)
