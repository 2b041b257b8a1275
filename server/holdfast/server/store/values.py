"""What a store is given and what it gives back: logs and their parts, the outcomes of appends, what nodes say.

`Conflict` is an outcome and not an error: writers race by design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

FORMAT = 1
"""The format of a log written by this version. A store that finds another raises `UnknownFormatError`."""

PAGE_BYTES = 128 * 1024
"""About so many bytes of batches come with one answer of a store, but two batches where there are two: the first may be
one that whoever asks knows, to be compared."""

CONFLICT_BATCHES = 64
"""So many batches come with a conflict at most. Whoever has missed more reads on."""

WAKE_UP_BYTES = 64 * 1024
"""A larger batch does not come with the wake-up that tells of it."""

CONTENTION_MS = 200
"""How long a lost race for a session is remembered, so that its winner can make room for the loser."""


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
"""Of an append: an exception where it failed, a `StoreUnavailableError` among them where that is not known."""

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
