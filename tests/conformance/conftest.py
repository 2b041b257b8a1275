"""Every test of this directory holds for every store. A new store joins by an entry in `harness.STORES`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.server.store import Store
from tests.conformance.harness import SHARED, STORES, Clock, Place, Writer


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the store under test."""
    return Clock()


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Place:
    """Return a place where nothing lies."""
    return STORES[str(request.param)](tmp_path, clock)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    """Yield a store that is started and empty."""
    store = place.store()
    await store.start()
    yield store
    await store.close()


@pytest.fixture(params=SHARED)
async def shared(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[tuple[Store, Store]]:
    """Yield the stores of two nodes over the same logs, not yet started: they may listen first."""
    place = STORES[str(request.param)](tmp_path, clock)
    stores = place.store(), place.store()
    yield stores
    for store in stores:
        await store.close()


@pytest.fixture
async def writer(store: Store) -> Writer:
    """Return a writer of session "s", whose log is open and empty."""
    await store.open("s", "e1")
    return Writer(store)
