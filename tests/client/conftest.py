"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.client.fake_server import FakeServer


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeServer]:
    """A scripted server on the loopback; clients in this process reconnect to it at once."""
    monkeypatch.setattr("holdfast.client.backoff.BASE_SECONDS", 0.0)
    server = FakeServer()
    await server.start()
    yield server
    await server.stop()
