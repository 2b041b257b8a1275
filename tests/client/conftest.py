"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.client.fake_server import FakeServer


@pytest.fixture(autouse=True)
def no_waiting_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnects come at once: a full jitter over nothing."""
    monkeypatch.setattr("holdfast.client.backoff.BASE_SECONDS", 0.0)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeServer]:
    """A scripted server on the loopback."""
    server = FakeServer()
    await server.start()
    yield server
    await server.stop()
