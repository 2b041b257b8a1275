"""Every test of this directory holds for every store. A new store joins by an entry in `harness.STORES`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.server.store import Store
from tests.conformance.harness import SHARED, STORES, Clock, Writer


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the store under test."""
    return Clock()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """Yield a store that is started and empty."""
    store = STORES[str(request.param)](tmp_path, clock)
    await store.start()
    yield store
    await store.close()


@pytest.fixture(params=sorted(SHARED))
async def shared(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[tuple[Store, Store]]:
    """Yield the stores of two nodes over the same logs, not yet started: they may listen first."""
    name = str(request.param)
    one = STORES[name](tmp_path, clock)
    two = SHARED[name](one)
    yield one, two
    for store in (one, two):
        await store.close()


@pytest.fixture
async def writer(store: Store) -> Writer:
    """Return a writer of session "s", whose log is open and empty."""
    await store.open("s", "e1")
    return Writer(store)
