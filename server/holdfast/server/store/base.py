"""What Holdfast needs of a store: one append-only log per session, and what stands beside the logs.

Everything rests on one primitive, compare-and-append: a batch is added only onto the head its writer had
folded. A store never looks into payloads; they are bytes to it. Sequence numbers are positive integers,
times are integer milliseconds on the store's own clock. `Conflict` is an outcome and not an error: writers
race by design.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from holdfast.protocol.errors import HoldfastError

FORMAT = 1
"""The format of a log written by this version. A store that finds another raises `UnknownFormat`."""

PAGE_BYTES = 128 * 1024
"""About so many bytes of batches come with one answer of a store, but two batches where there are two: the first may be
one that whoever asks knows, to be compared."""

CONFLICT_BATCHES = 64
"""So many batches come with a conflict at most. Whoever has missed more reads on."""

WAKE_UP_BYTES = 64 * 1024
"""A larger batch does not come with the wake-up that tells of it."""

CONTENTION_MS = 200
"""How long a lost race for a session is remembered, so that its winner can make room for the loser."""


class StoreError(HoldfastError):
    """A store cannot do what it was asked, and asking again will not help."""

    code = "internal"
    retryable = False


class StoreUnavailable(StoreError):
    """The call did not happen, or its outcome is unknown. An append may be repeated with the same
    `batch_id`.
    """

    code = "unavailable"
    retryable = True


class UnknownFormat(StoreError):
    """The log, or the file it lies in, was written in a format that this version does not know."""


class Batch(NamedTuple):
    """What one append adds: the events `first_seq` to `last_seq`, encoded in `payload`.

    This, `Head` and `Appended` are made for every append, and a frozen dataclass costs twice as much to make.
    """

    batch_id: str
    first_seq: int
    last_seq: int
    payload: bytes


class Head(NamedTuple):
    """Where a log ends. `batch_id` names the last append, and is empty before the first one."""

    epoch: str
    seq: int
    batch_id: str


NO_LOG = Head(epoch="", seq=0, batch_id="")
"""The head reported for a session that has no log; no log has an empty epoch."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folded state that stands for every event up to `seq`."""

    seq: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Log:
    """What `Store.open` returns, cut at one point.

    `batches` are those that end after the checkpoint, or all where there is none; ascending, and without a
    gap up to `head` except where a new epoch jumped. The first may begin at or before the checkpoint's seq.
    """

    head: Head
    checkpoint: Checkpoint | None
    batches: tuple[Batch, ...]
    suspect: bool = False
    """The store may have lost what it had accepted for this log, and nobody may have noticed: it needs a new epoch.
    Told until it has one."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What `Store.read` and `Store.catch_up` return, cut at one point.

    Events with seq <= `floor` have been trimmed, so the tail is complete only if `floor` <= the `after`
    asked for. `batches` are ascending; the first may begin at or before `after`. None ends behind `head`, and they
    end before it where there were too many for one answer.
    """

    head: Head
    floor: int
    batches: tuple[Batch, ...]


class Owed(NamedTuple):
    """What is owed in a session as its log stands: its entry in the index.

    Stores compare it by identity first: a writer hands in the same object until something of it changes.
    """

    owners: frozenset[str] = frozenset()
    """The nodes that have to end what goes on: a run, or the work of one that has ended."""
    queued: bool = False
    """A run is queued, and no other has to end for it to start."""
    due_at: int | None = None
    """When the first deadline of a run or a request passes, in ms since the Unix epoch."""

    def is_orphan(self, live: Set[str], now: int) -> bool:
        """Whether somebody has to see to it: who should is not `live`, or anybody may, or it is past due at `now`."""
        return self.queued or not self.owners <= live or (self.due_at is not None and self.due_at <= now)


NOTHING_OWED = Owed()
"""Such a session is not in the index."""


class Append(NamedTuple):
    """An append that is asked for: see `Store.append`."""

    session: str
    expected: Head
    batch: Batch
    node: str
    owed: Owed


class Appended(NamedTuple):
    """The batch is in the log. `contended`: another node lost a race for this session in the last 200 ms."""

    head: Head
    contended: bool


@dataclass(frozen=True, slots=True)
class Diverged:
    """The log, which stands at `head` now, is not known to go on from where it was believed to stand: it has another
    epoch, is shorter, has other contents up to there, or was trimmed too far to tell. It is to be opened anew.
    """

    head: Head


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was added: the log stands at `head` (`NO_LOG` where there is none) and not where the writer
    believed.
    """

    head: Head
    batches: tuple[Batch, ...] = ()
    """Those that end at or after the seq that was expected, so that the first shows whether the log is the one that the
    writer has folded: see `behind`. At most `CONFLICT_BATCHES`, and about `PAGE_BYTES`; where that cut they end before
    `head`. None where the log has another epoch, is shorter, or was trimmed up to there.
    """


Outcome: TypeAlias = Appended | Conflict | Exception
"""Of an append: an exception where it failed, a `StoreUnavailable` among them where that is not known."""

Landed: TypeAlias = Callable[[Sequence[Append], Sequence[Outcome]], None]
"""Is told of appends that were asked for together, and of their outcomes in the same order."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One finished message of the archive; `seq` is its place in the transcript, and unique in its
    session.
    """

    seq: int
    message_id: str
    payload: bytes


class StoredSize(NamedTuple):
    """How large the payload of a message of the archive is, in bytes."""

    seq: int
    message_id: str
    size: int


def not_following(expected: Head, batch: Batch) -> ValueError | None:
    """The mistake of a writer whose batch holds no event, or does not begin right after `expected`."""
    if batch.first_seq == expected.seq + 1 and batch.last_seq >= batch.first_seq:
        return None
    return ValueError(f"{batch.first_seq}…{batch.last_seq} cannot follow seq {expected.seq}")


def page(batches: Iterable[Batch], count: int) -> tuple[Batch, ...]:
    """The first `count` batches, or as many as make one answer."""
    taken: list[Batch] = []
    size = 0
    for batch in batches:
        size += len(batch.payload)
        if len(taken) == count or (size > PAGE_BYTES and len(taken) > 1):
            break
        taken.append(batch)
    return tuple(taken)


def behind(head: Head, batches: Sequence[Batch]) -> Sequence[Batch] | None:
    """Those of `batches` that follow exactly `head`; None where they belong to a log that is not the one it names.

    `batches` are of the epoch of `head`: from the one that holds its seq on, as a `Conflict` has them, or from the one
    right behind it, if it is the seq that a log or an epoch began at.
    """
    if not batches:
        return None
    first = batches[0]
    if first.first_seq == head.seq + 1:
        return batches
    return batches[1:] if (first.last_seq, first.batch_id) == (head.seq, head.batch_id) else None


class LiveNode(NamedTuple):
    """What a node says of itself with its lease."""

    agents: frozenset[str] = frozenset()
    """Those that it can run."""
    accepting: bool = True
    """False while it goes away: it starts and takes over nothing."""
    since: int = 0
    """When it was started, by its own clock, in ms since the Unix epoch."""


class Presence(NamedTuple):
    """Who observes a session through one node."""

    observers: int
    """At least one."""
    devices: bytes
    """Who they are; bytes to a store."""


class Listener(Protocol):
    """A node that is woken when others write to the sessions that it watches.

    A hint and no more: wake-ups may be lost, and come late or more than once. Called on the event loop, and never
    within somebody's call of the store. What it raises is logged.
    """

    def heard(self, session: str, before: Head, head: Head, batch: Batch | None) -> None:
        """Another node has moved a log from `before` to `head`: by `batch`, or where that is None by one that is too
        large to come along, or to a new epoch, be it the node's own. Those of one session come in the order of its log.
        """

    def gap(self) -> None:
        """Wake-ups of any session may have been lost until now."""


class Store(ABC):
    """The logs of all sessions, with their archive, index, leases and presence.

    Any method may raise `StoreUnavailable`. Cancelling a caller never undoes or prevents what it asked for:
    a write whose caller was cancelled has an unknown outcome. A read that begins after an append returned
    sees that append.
    """

    shared: bool
    """Others may write here: where a log stands must be asked for, and is told by wake-ups. Otherwise the head that its
    one writer knows is the head."""
    durable: bool
    """What was acknowledged is there again after `close` and `start`, in this process or the next."""
    left_in_order: bool = False
    """From `start` on: whether whoever had the store before closed it. False where that is not known."""

    @abstractmethod
    async def start(self) -> None:
        """Make the store ready. Raises `StoreError` if it is in use by another, or not one of ours."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was asked for before this call, then let go of everything. Closing twice is
        harmless.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Return when the store has written something now, or a second ago. Raises `StoreUnavailable`, or another
        `StoreError`, where it cannot.
        """

    @abstractmethod
    async def open(self, session: str, new_epoch: str, *, watcher: str | None = None) -> Log:
        """Return what is needed to fold the session. Creates an empty log with epoch `new_epoch` if there is
        none. From then on the node `watcher` watches the session, so that nothing is missed in between.

        Raises `UnknownFormat` for a log that a later version has written: the session can be had elsewhere only.
        """

    @abstractmethod
    def append_many(self, requests: Sequence[Append], landed: Landed) -> Sequence[Outcome] | None:
        """Append to several sessions, at most once to each: see `append` for what becomes of each by itself.

        Either the outcomes are returned, in the order of `requests`, and `landed` is never called: so do stores that
        answer at once. Or None is, and `landed` is called once, later, on the event loop; `close` waits for that.
        Nothing is raised: a request that fails has its error as outcome, and fails no other. Nobody changes `requests`
        meanwhile. What `landed` raises is logged, and reaches nobody.
        """

    async def append(self, session: str, expected: Head, batch: Batch, *, node: str, owed: Owed) -> Appended | Conflict:
        """Add `batch` at the head of the log, if the log stands where the writer believes.

        Decided in this order:

        1. the head's epoch is that of `expected` and its last batch is this one: `Appended`, and nothing is
           added. A writer that lost the reply may therefore repeat the call unchanged;
        2. there is no log, or its head is not `expected` in epoch, seq and last batch: `Conflict`. Epoch and
           seq alone would not do: a log that was rolled back and then written by another reaches the same
           seq with other contents. Where there is a log, the lost race is remembered for 200 ms under the
           name of `node`;
        3. the batch is written and the head moves: `Appended`.

        A writer whose batch was accepted and then built upon gets `Conflict` when it repeats it, and finds it right
        `behind` its head in that; where no batches are in it, among those that it reads. `batch` begins right after
        `expected`; anything else is a `ValueError`.

        `owed` is what the index says of the session from then on. It is entered before the log has the batch, and taken
        out after it: entries may be stale for a while, but what is owed is never missing. It is that of the last batch,
        in whatever order those of several nodes come to the index.
        """
        waiting: asyncio.Future[Outcome] | None = None

        def landed(_: Sequence[Append], outcomes: Sequence[Outcome]) -> None:
            assert waiting is not None, "a store that calls back has returned before"
            if not waiting.done():
                waiting.set_result(outcomes[0])

        outcomes = self.append_many([Append(session, expected, batch, node, owed)], landed)
        if outcomes is None:
            waiting = asyncio.get_running_loop().create_future()
            outcome = await waiting
        else:
            (outcome,) = outcomes
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @abstractmethod
    async def heads(self, sessions: Sequence[str], *, watcher: str | None = None) -> list[Head | None]:
        """Where each of the logs ends now, or None if there is none: one call for all of them.

        The node `watcher` watches those that are there. A store may have lost that it does: every look renews it.
        """

    async def head(self, session: str, *, watcher: str | None = None) -> Head | None:
        """Where one log ends now, see `heads`."""
        (head,) = await self.heads([session], watcher=watcher)
        return head

    @abstractmethod
    async def read(self, session: str, after: int, *, count: int = 1_000) -> Tail:
        """Return the batches that end after seq `after`: at most `count`, and about `PAGE_BYTES`, see there."""

    async def catch_up(self, session: str, head: Head, *, count: int = 1_000) -> Tail | Diverged:
        """Return the batches behind exactly `head`, or say that the log is not known to go on from there.

        At most `count`, and about `PAGE_BYTES`: whoever has folded them asks again from where they end, until that is
        the head of the tail.
        """
        tail = await self.read(session, head.seq - 1, count=count + 1)
        if tail.head == head:
            return Tail(head, tail.floor, ())
        if tail.head.epoch != head.epoch or tail.floor >= max(1, head.seq):
            return Diverged(tail.head)
        batches = behind(head, tail.batches)
        return Diverged(tail.head) if batches is None else Tail(tail.head, tail.floor, tuple(batches[:count]))

    @abstractmethod
    async def new_epoch(self, session: str, expected: Head, epoch: str, seq: int) -> bool:
        """Begin a new epoch at `seq`, if the head of the log still is `expected`; say whether it did.

        The contents stay, and the log goes on at `seq` + 1. It is not suspect any more. `seq` below the expected one
        is a `ValueError`.
        """

    @abstractmethod
    async def compact(
        self,
        session: str,
        epoch: str,
        checkpoint: Checkpoint,
        *,
        messages: Sequence[StoredMessage],
        records: Mapping[str, bytes],
        trim_to: int,
    ) -> bool:
        """In one step set the checkpoint, add to the archive, and trim batches that end at or before
        `trim_to`.

        A checkpoint never replaces a later one; messages and records are facts and are written all the same
        (a key or a seq written twice keeps the last). Nothing after the checkpoint then in force is trimmed,
        whatever `trim_to` says. Returns False and changes nothing if `epoch` is not the log's or the
        checkpoint is beyond its head.
        """

    @abstractmethod
    async def find(self, session: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the archive records that exist under `keys`."""

    @abstractmethod
    async def messages(self, session: str, before: int | None, limit: int) -> list[StoredMessage]:
        """Return the `limit` archived messages of highest seq (below `before` where given), ascending."""

    @abstractmethod
    async def message_sizes(self, session: str, before: int | None, limit: int) -> list[StoredSize]:
        """Return what `messages` would, without the payloads."""

    @abstractmethod
    async def message_piece(self, session: str, seq: int, start: int, size: int) -> bytes:
        """Return `size` bytes from `start` of the payload of the archived message `seq`; less where it ends, none
        where there is no such message. Pieces are read one after the other, and cost about their size.
        """

    @abstractmethod
    async def orphans(self, live: Set[str], now: int) -> dict[str, Owed]:
        """What the index says of the sessions that somebody has to see to, see `Owed.is_orphan`.

        A node that leaves itself out of `live` gets all that it owes itself, too.
        """

    @abstractmethod
    def listen(self, node: str, listener: Listener) -> Callable[[], None]:
        """Wake `listener` when another node than `node` moves a log that `node` watches. Once for each, before `start`.

        Returns the function that ends it; the listener is not called after that.
        """

    @abstractmethod
    async def unwatch(self, session: str, node: str) -> None:
        """End what `open` began: the node hears no more of the session. Harmless where it does not watch it."""

    @abstractmethod
    async def renew(self, node: str, ttl_ms: int, says: LiveNode) -> int:
        """Hold the lease of `node` for `ttl_ms` from now on, with what it says of itself.

        Returns what the store's clock stands at, in ms since the Unix epoch: leases are by that clock.
        """

    @abstractmethod
    async def release(self, node: str) -> None:
        """Give up the lease of `node`, and with it its presence and what it watches."""

    @abstractmethod
    async def live(self) -> dict[str, LiveNode]:
        """The nodes that hold a lease now, with what each said when it renewed it last."""

    @abstractmethod
    async def observe(self, session: str, node: str, observers: int, devices: bytes = b"") -> None:
        """Set how many observers `node` has on the session, and who they are. It counts only while the node holds its
        lease, and again when it holds it again.
        """

    @abstractmethod
    async def present(self, session: str) -> dict[str, Presence]:
        """The observers of the session, by the node whose they are."""

    @abstractmethod
    async def unobserved_since(self, session: str) -> int | None:
        """None while someone observes the session, else the time (ms) since when nobody did.

        For a session never observed that is the time of the first such question. A store may forget, and
        then the time starts again: it is never too early.
        """
