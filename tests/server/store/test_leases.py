"""What a store within one process keeps in memory: until when, and how much of it."""

from __future__ import annotations

import pytest

from holdfast.server.store import Appended, Batch, Head, LiveNode, MemoryStore, leases
from tests.conformance.harness import OWED


async def test_the_longest_unobserved_session_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a session's time starts again, and that of the others stays."""
    monkeypatch.setattr(leases, "REMEMBERED_SESSIONS", 2)
    times = iter([1, 2, 3, 10, 10, 10])
    store = MemoryStore(lambda: next(times))
    assert [await store.unobserved_since(session) for session in ("a", "b", "c")] == [1, 2, 3]
    assert [await store.unobserved_since(session) for session in ("c", "b", "a")] == [3, 2, 10]


async def test_old_marks_are_swept_with_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Races lost in sessions that nobody appends to again do not pile up."""
    monkeypatch.setattr(leases, "_MARKS_BEFORE_SWEEP", 3)
    now = 0
    store = MemoryStore(lambda: now)
    for number in range(50):
        now += 100
        await store.open(f"s{number}", "e1")
        await store.append(f"s{number}", Head("e0", 0, ""), Batch("x", 1, 1, b""), node="n", owed=OWED)
        assert len(store._marks) <= 3  # pyright: ignore[reportPrivateUsage]


async def test_a_lease_ends_to_the_millisecond() -> None:
    """It is held for as long as was asked for, and no longer."""
    now = 0
    store = MemoryStore(lambda: now)
    await store.renew("n1", 1_000, LiveNode())
    now = 999
    assert await store.live() == {"n1": LiveNode()}
    now = 1_000
    assert await store.live() == {}


async def test_a_lost_race_is_remembered_for_200_milliseconds() -> None:
    """Its winner is told of it until then."""
    now = 0
    store = MemoryStore(lambda: now)
    await store.open("s", "e1")
    await store.append("s", Head("e0", 0, ""), Batch("x", 1, 1, b""), node="n2", owed=OWED)
    head = Head("e1", 0, "")
    told: list[bool] = []
    for now in (199, 200):
        result = await store.append("s", head, Batch(f"b{now}", head.seq + 1, head.seq + 1, b""), node="n1", owed=OWED)
        assert isinstance(result, Appended)
        told.append(result.contended)
        head = result.head
    assert told == [True, False]
