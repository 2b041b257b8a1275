"""A store between a node and the real one, which fails as stores fail: it pauses, loses replies, hides wake-ups.

Each node gets a `FaultyStore` of its own over a common `SharedStore`: one can be cut off while the other is not.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Any, Literal

from typing_extensions import override

from holdfast.protocol.events import Event
from holdfast.server.errors import StoreError, StoreUnavailableError
from holdfast.server.session.records import decode_batch
from holdfast.server.store import (
    Append,
    Appended,
    Batch,
    Checkpoint,
    Conflict,
    Head,
    Landed,
    Listener,
    LiveNode,
    Log,
    MemoryStore,
    Outcome,
    Owed,
    Presence,
    Store,
    StoredMessage,
    StoredSize,
    Tail,
)

Loss = Literal["before", "after"]
"""A call fails before it did anything, or its reply is lost after it did everything."""


class SharedStore(MemoryStore):
    """The store behind all nodes. It remembers every event that it holds, trimmed ones too, and can be rolled back."""

    def __init__(self, clock: Callable[[], int], *, shared: bool = True) -> None:
        super().__init__(clock, shared=shared)
        self.ledger: dict[str, list[tuple[str, Event]]] = {}
        """By session: (epoch, event) of everything in the log, in order."""
        self.compactions = 0
        """How often something was archived."""
        self.checkpoints: list[int] = []
        """How large each checkpoint was."""
        self.lost: list[Event] = []
        """What was accepted once and then rolled back."""

    @override
    def append_many(self, requests: Sequence[Append], landed: Landed) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for request in requests:
            log = self._logs.get(request.session)
            before = log and log.head
            (outcome,) = super().append_many([request], landed)
            if isinstance(outcome, Appended) and outcome.head != before:
                events = [(outcome.head.epoch, record.event) for record in decode_batch(request.batch.payload)]
                self.ledger.setdefault(request.session, []).extend(events)
            outcomes.append(outcome)
        return outcomes

    @override
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
        self.compactions += 1
        self.checkpoints.append(len(checkpoint.payload))
        return await super().compact(session, epoch, checkpoint, messages=messages, records=records, trim_to=trim_to)

    def events(self, session: str) -> list[Event]:
        """Everything in the log of a session."""
        return [event for _, event in self.ledger.get(session, [])]

    def save(self) -> Any:
        """Everything as it is now, for `roll_back`."""
        return copy.deepcopy((self._logs, self._index, self.ledger))

    def roll_back(self, saved: Any, *, known: bool = False) -> None:
        """The store is what it was, as after a failover to a replica that lagged. Nobody is told of it; but where it is
        `known` to the store, whoever opens a log.
        """
        before = self.ledger
        self.incarnation += known
        self._logs, self._index, self.ledger = copy.deepcopy(saved)
        for session, events in before.items():
            self.lost.extend(event for _, event in events[len(self.ledger.get(session, ())) :])


class FaultyStore(Store):
    """One node's way to the store. Undisturbed it adds nothing but a count of the calls."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self._listener: Listener
        self.shared = inner.shared
        self.durable = inner.durable
        self.calls: Counter[str] = Counter()
        self.batches_read = 0
        self.faults: dict[str, deque[Loss | None]] = {}
        """What happens to the next calls of a method, one after the other; None: nothing."""
        self.down = False
        """Every call fails, before it did anything."""
        self.broken: set[str] = set()
        """Methods that raise what asking again does not help against."""
        self.deaf = False
        """Wake-ups are lost."""
        self.before: Callable[[str], Awaitable[None]] | None = None
        """Called with the method's name before every call."""
        self._gates: dict[str, asyncio.Event] = {}
        self._appending: set[asyncio.Future[None]] = set()
        self.arrived = asyncio.Event()
        """Set when a call waits at a gate."""

    def pause(self, *methods: str) -> None:
        """Calls of these methods wait, until `resume`, before they do anything."""
        for method in methods:
            self._gates.setdefault(method, asyncio.Event())
        self.arrived.clear()

    def resume(self) -> None:
        """Nothing waits any more."""
        for gate in self._gates.values():
            gate.set()
        self._gates.clear()

    def lose(self, method: str, *losses: Loss | None) -> None:
        """The next calls of a method fail like this."""
        self.faults.setdefault(method, deque()).extend(losses)

    async def _enter(self, method: str) -> Loss | None:
        self.calls[method] += 1
        if self.before is not None:
            await self.before(method)
        while method in self._gates:
            self.arrived.set()
            await self._gates[method].wait()
        faults = self.faults.get(method)
        loss = faults.popleft() if faults else None
        if self.down or loss == "before":
            raise StoreUnavailableError(f"{method}: no connection")
        if method in self.broken:
            raise StoreError(f"{method}: the database disk image is malformed")
        return loss

    @staticmethod
    def _leave(method: str, loss: Loss | None) -> None:
        if loss == "after":
            raise StoreUnavailableError(f"{method}: the reply was lost")

    @override
    async def start(self) -> None:
        await self.inner.start()

    @override
    async def close(self) -> None:
        """The store behind stays open for the others."""

    @override
    async def open(self, session: str, new_epoch: str, *, watcher: str | None = None) -> Log:
        loss = await self._enter("open")
        log = await self.inner.open(session, new_epoch, watcher=watcher)
        self.batches_read += len(log.batches)
        self._leave("open", loss)
        return log

    @override
    def append_many(self, requests: Sequence[Append], landed: Landed) -> Sequence[Outcome] | None:
        """As `append` for each by itself: it answers later where anything may happen to one."""
        faults = self.faults.get("append") or "append" in self._gates or "append" in self.broken
        if not (faults or self.down or self.before):
            self.calls["append"] += len(requests)
            return self.inner.append_many(requests, landed)
        task = asyncio.ensure_future(self._append_many(requests, landed))
        self._appending.add(task)
        task.add_done_callback(self._appending.discard)
        return None

    async def _append_many(self, requests: Sequence[Append], landed: Landed) -> None:
        appends = [
            self.append(request.session, request.expected, request.batch, node=request.node, owed=request.owed)
            for request in requests
        ]
        outcomes: list[Any] = await asyncio.gather(*appends, return_exceptions=True)
        landed(requests, outcomes)

    @override
    async def append(self, session: str, expected: Head, batch: Batch, *, node: str, owed: Owed) -> Appended | Conflict:
        loss = await self._enter("append")
        result = await self.inner.append(session, expected, batch, node=node, owed=owed)
        self._leave("append", loss)
        return result

    @override
    async def heads(self, sessions: Sequence[str], *, watcher: str | None = None) -> list[Head | None]:
        loss = await self._enter("heads")
        heads = await self.inner.heads(sessions, watcher=watcher)
        self._leave("heads", loss)
        return heads

    @override
    async def read(self, session: str, after: int, *, count: int = 1_000) -> Tail:
        loss = await self._enter("read")
        tail = await self.inner.read(session, after, count=count)
        self.batches_read += len(tail.batches)
        self._leave("read", loss)
        return tail

    @override
    async def new_epoch(self, session: str, expected: Head, epoch: str, seq: int) -> bool:
        loss = await self._enter("new_epoch")
        done = await self.inner.new_epoch(session, expected, epoch, seq)
        self._leave("new_epoch", loss)
        return done

    @override
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
        loss = await self._enter("compact")
        done = await self.inner.compact(session, epoch, checkpoint, messages=messages, records=records, trim_to=trim_to)
        self._leave("compact", loss)
        return done

    @override
    async def find(self, session: str, keys: Sequence[str]) -> dict[str, bytes]:
        loss = await self._enter("find")
        found = await self.inner.find(session, keys)
        self._leave("find", loss)
        return found

    @override
    async def messages(self, session: str, before: int | None, limit: int) -> list[StoredMessage]:
        loss = await self._enter("messages")
        messages = await self.inner.messages(session, before, limit)
        self._leave("messages", loss)
        return messages

    @override
    async def message_sizes(self, session: str, before: int | None, limit: int) -> list[StoredSize]:
        loss = await self._enter("message_sizes")
        sizes = await self.inner.message_sizes(session, before, limit)
        self._leave("message_sizes", loss)
        return sizes

    @override
    async def message_piece(self, session: str, seq: int, start: int, size: int) -> bytes:
        loss = await self._enter("message_piece")
        piece = await self.inner.message_piece(session, seq, start, size)
        self._leave("message_piece", loss)
        return piece

    @override
    async def orphans(self, live: Set[str], now: int) -> dict[str, Owed]:
        loss = await self._enter("orphans")
        sessions = await self.inner.orphans(live, now)
        self._leave("orphans", loss)
        return sessions

    @override
    def listen(self, node: str, listener: Listener) -> Callable[[], None]:
        self._listener = listener
        return self.inner.listen(node, self)

    def heard(self, session: str, before: Head, head: Head, batch: Batch | None) -> None:
        """What the store behind has to say to the node."""
        self.calls["heard"] += 1
        if not self.deaf:
            self._listener.heard(session, before, head, batch)

    def gap(self) -> None:
        """The same."""
        self._listener.gap()

    @override
    async def unwatch(self, session: str, node: str) -> None:
        loss = await self._enter("unwatch")
        await self.inner.unwatch(session, node)
        self._leave("unwatch", loss)

    @override
    async def ping(self) -> None:
        loss = await self._enter("ping")
        await self.inner.ping()
        self._leave("ping", loss)

    @override
    async def renew(self, node: str, ttl_ms: int, says: LiveNode) -> int:
        loss = await self._enter("renew")
        now = await self.inner.renew(node, ttl_ms, says)
        self._leave("renew", loss)
        return now

    @override
    async def release(self, node: str) -> None:
        loss = await self._enter("release")
        await self.inner.release(node)
        self._leave("release", loss)

    @override
    async def live(self) -> dict[str, LiveNode]:
        loss = await self._enter("live")
        nodes = await self.inner.live()
        self._leave("live", loss)
        return nodes

    @override
    async def observe(self, session: str, node: str, observers: int, devices: bytes = b"") -> None:
        loss = await self._enter("observe")
        await self.inner.observe(session, node, observers, devices)
        self._leave("observe", loss)

    @override
    async def present(self, session: str) -> dict[str, Presence]:
        loss = await self._enter("present")
        present = await self.inner.present(session)
        self._leave("present", loss)
        return present

    @override
    async def unobserved_since(self, session: str) -> int | None:
        loss = await self._enter("unobserved_since")
        since = await self.inner.unobserved_since(session)
        self._leave("unobserved_since", loss)
        return since
