"""What the conformance tests drive a store with: the stores there are, where they lie, their clock, and a writer."""

from __future__ import annotations

import copy
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from typing_extensions import override

from holdfast.server.store import Append, Appended, Batch, Head, MemoryStore, Owed, SqliteStore, Store


class Clock:
    """The clock of a store, which stands still until a test lets time pass. For a store that has a clock of its own:
    one that waits, and is less exact.
    """

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        """Return what it stands at, in ms."""
        return self.now

    async def pass_ms(self, ms: int) -> None:
        """Return when `ms` have passed on the clock of the store."""
        self.now += ms

    def is_at(self, time: int | None, expected: int) -> bool:
        """Whether a time that the store told is the expected one, as exactly as that can be known."""
        return time == expected


class Place(ABC):
    """Where the logs of a store lie, whoever has it open."""

    durable = True
    """What was acknowledged is there again for the next who opens it."""
    shared = True
    """Several nodes may have it open at once."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock

    @abstractmethod
    def store(self) -> Store:
        """Return a store over the place, not started: one for every node, or for the next process."""

    @abstractmethod
    def save(self) -> Any:
        """Return what lies there now, as a copy that is not written on would have it."""

    @abstractmethod
    def fail_over(self, saved: Any) -> None:
        """Let what was saved take the place of what lies there, while nobody has it open."""


class MemoryPlace(Place):
    """One store, which every node has."""

    durable = False

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self._store = MemoryStore(clock, shared=True)

    @override
    def store(self) -> Store:
        return self._store

    @override
    def save(self) -> Any:
        store: Any = self._store
        return copy.deepcopy((store._logs, store._index))

    @override
    def fail_over(self, saved: Any) -> None:
        store: Any = self._store
        store._logs, store._index = copy.deepcopy(saved)
        store.incarnation += 1


class SqlitePlace(Place):
    """A file; a machine that goes down leaves an older one behind."""

    shared = False
    boots = 0

    @override
    def store(self) -> Store:
        return SqliteStore(self.directory / "holdfast.db", clock=self.clock, boot=f"boot {self.boots}")

    @override
    def save(self) -> Path:
        saved = self.directory / f"saved {len(list(self.directory.iterdir()))}"
        saved.mkdir()
        for file in self.directory.glob("holdfast.db*"):
            shutil.copy(file, saved)
        return saved

    @override
    def fail_over(self, saved: Path) -> None:
        self.boots += 1
        for file in self.directory.glob("holdfast.db*"):
            file.unlink()
        for file in saved.iterdir():
            shutil.copy(file, self.directory)


class _ShortTail(SqliteStore):
    longest_tail = 3


class PlacedPlace(SqlitePlace):
    """The same with hardly a tail, so that what is said of a few batches is said of many."""

    @override
    def store(self) -> Store:
        return _ShortTail(self.directory / "holdfast.db", clock=self.clock, boot=f"boot {self.boots}")


STORES: dict[str, type[Place]] = {"memory": MemoryPlace, "sqlite": SqlitePlace, "sqlite-placed": PlacedPlace}
DURABLE = sorted(name for name, place in STORES.items() if place.durable)
SHARED = sorted(name for name, place in STORES.items() if place.shared)

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
