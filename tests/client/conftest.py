"""Fixtures of the client's tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.client.fake_server import FakeServer


@pytest_asyncio.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """After every test, and after its server has gone: no task, no timer and no socket of the test is left."""
    loop: Any = asyncio.get_running_loop()
    tasks = asyncio.all_tasks()
    sockets = len(loop._selector.get_map())
    yield
    left = asyncio.all_tasks() - tasks - {asyncio.current_task()}
    assert not left, f"tasks left: {left}"
    timers = [timer for timer in loop._scheduled if not timer.cancelled()]
    assert not timers, f"timers left: {timers}"
    assert len(loop._selector.get_map()) == sockets, "sockets left"


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeServer]:
    """A scripted server on the loopback; clients in this process reconnect to it at once."""
    monkeypatch.setattr("holdfast.client.backoff.BASE_SECONDS", 0.0)
    server = FakeServer()
    await server.start()
    yield server
    await server.stop()
