"""What Holdfast needs of a store: one append-only log per session, and what stands beside the logs.

Everything rests on one primitive, compare-and-append: a batch is added only onto the head its writer had
folded. A store never looks into payloads; they are bytes to it. Sequence numbers are positive integers,
times are integer milliseconds on the store's own clock.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Protocol

from holdfast.server.store.values import (
    Append,
    Appended,
    Batch,
    Checkpoint,
    Conflict,
    Diverged,
    Head,
    Landed,
    LiveNode,
    Log,
    Outcome,
    Owed,
    Presence,
    StoredMessage,
    StoredSize,
    Tail,
    behind,
)


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

    Any method may raise `StoreUnavailableError`. Cancelling a caller never undoes or prevents what it asked for:
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
        """Return when the store has written something now, or a second ago. Raises `StoreUnavailableError`, or another
        `StoreError`, where it cannot.
        """

    @abstractmethod
    async def open(self, session: str, new_epoch: str, *, watcher: str | None = None) -> Log:
        """Return what is needed to fold the session. Creates an empty log with epoch `new_epoch` if there is
        none. From then on the node `watcher` watches the session, so that nothing is missed in between.

        Raises `UnknownFormatError` for a log that a later version has written: the session can be had elsewhere only.
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
