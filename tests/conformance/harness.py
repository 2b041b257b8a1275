"""What the conformance tests drive a store with: the stores there are, their clock, and a writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from holdfast.server.store import Append, Appended, Batch, Head, MemoryStore, Owed, SqliteStore, Store


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        """Return what it stands at, in ms."""
        return self.now

    def advance(self, ms: int) -> None:
        """Let `ms` pass."""
        self.now += ms


STORES: dict[str, Callable[[Path, Clock], Store]] = {
    "memory": lambda _, clock: MemoryStore(clock, shared=True),
    "sqlite": lambda directory, clock: SqliteStore(directory / "holdfast.db", clock=clock),
}

DURABLE = frozenset({"sqlite"})
"""Those that have what was acknowledged when they are started again over the same place."""

SHARED: dict[str, Callable[[Store], Store]] = {"memory": lambda store: store}
"""Those that several nodes may have at once, and how another node comes to what a store holds."""

OWED = Owed(frozenset({"n1"}))
"""By a node."""

START = Head("e1", 0, "")
"""Of the log that the fixture `writer` begins with."""


class Writer:
    """Appends to one session as a node does: it knows a head, and makes batches that follow it."""

    def __init__(self, store: Store, session: str = "s", epoch: str = "e1", node: str = "n1") -> None:
        self.store = store
        self.session = session
        self.node = node
        self.head = Head(epoch, 0, "")

    def batch(self, batch_id: str, count: int = 1, size: int = 3) -> Batch:
        """Make the batch of `count` events and `size` bytes that follows the head this writer knows."""
        return Batch(batch_id, self.head.seq + 1, self.head.seq + count, batch_id.encode().ljust(size, b".")[:size])

    def request(self, batch: Batch, owed: Owed = OWED) -> Append:
        """Make the request to append a batch."""
        return Append(self.session, self.head, batch, self.node, owed)

    async def append(self, batch_id: str, count: int = 1, *, size: int = 3, owed: Owed = OWED) -> Appended:
        """Append where nobody else writes."""
        batch = self.batch(batch_id, count, size)
        result = await self.store.append(self.session, self.head, batch, node=self.node, owed=owed)
        assert isinstance(result, Appended)
        self.head = result.head
        return result
