"""What waits to be written to a connection is bounded, whoever wrote it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import cast

import pytest

from holdfast.server.door import Door
from holdfast.server.limits import GatewaySettings
from holdfast.server.socket import WAITING_BYTES, WRITE_LIMIT, Socket
from tests.server.gateway.harness import Served, served, until
from tests.server.gateway.raw import PING, RawClient, frame

UNMETERED = GatewaySettings(
    commands_per_second=1e9, command_burst=10**9, heartbeat_ms=3_600_000, hello_seconds=60, hello_bytes=10**9
)
PINGS = frame(PING, b"x" * 125) * 500


def _door(server: Served) -> Door:
    doors: Mapping[Door, float] = server.gateway._doors  # pyright: ignore[reportPrivateUsage]
    (door,) = doors
    return door


def _socket(door: Door) -> Socket:
    return door._socket  # pyright: ignore[reportPrivateUsage]


def _transport(client: RawClient) -> asyncio.Transport:
    return cast("asyncio.Transport", client.writer.transport)


async def _ping_until(client: RawClient, socket: Socket, waiting: int) -> None:
    """Sends pings and reads none of their pongs, until so much waits or the server begins to close."""
    _transport(client).pause_reading()
    for _ in range(20_000):
        if socket.waiting > waiting or socket.protocol.close_sent is not None:
            return
        client.send(PINGS)
        for _ in range(3):
            await asyncio.sleep(0)
    raise AssertionError("the pings of a client that does not read went somewhere else")


@pytest.mark.parametrize("live", [False, True], ids=["before hello", "live"])
async def test_pongs_that_nobody_reads_close_the_connection(live: bool) -> None:
    """They count as everything else does: beyond the bound it is closed as too slow, after that nothing more is
    written, and it is cut when it does not close.
    """
    async with served(settings=UNMETERED) as server, RawClient.open(server, live=live) as client:
        await until(lambda: server.gateway.connections == 1)
        socket = _socket(_door(server))
        await _ping_until(client, socket, 10 * WAITING_BYTES)
        assert socket.code == 4003
        waiting = socket.waiting
        assert WAITING_BYTES < waiting < WAITING_BYTES + len(PINGS)
        for _ in range(20):
            client.send(PINGS)
            await asyncio.sleep(0)
        async with server.client("other", hello={}) as other:
            await other.ask("ping", id="p")
        assert socket.waiting <= waiting, "a pong was written behind the close frame"
        for _ in range(8):
            server.clock.advance(1_000)
        await until(lambda: server.gateway.connections == 0)


async def test_pongs_are_no_progress() -> None:
    """A reader that takes nothing is closed in time, also while what waits for it changes all the time."""
    async with served(settings=UNMETERED) as server, RawClient.open(server, live=True) as client:
        door = _door(server)
        await _ping_until(client, _socket(door), 2 * WRITE_LIMIT)
        for _ in range(30):
            sent = door.wire.sent
            client.send(frame(PING, b"y"))
            client.send(frame(1, json.dumps({"type": "ping", "id": "p"}).encode()))
            for _ in range(5):
                await asyncio.sleep(0)
            assert door.wire.sent == sent
            server.clock.advance(1_000)
        assert _socket(door).code == 4003


async def test_reading_is_progress() -> None:
    """One that reads now and then stays, though something waits for it all the time."""
    async with served(settings=UNMETERED) as server, RawClient.open(server, live=True) as client:
        door = _door(server)
        for _ in range(30):
            await _ping_until(client, _socket(door), 2 * WRITE_LIMIT)
            sent = door.wire.sent
            _transport(client).resume_reading()
            while door.wire.sent == sent:
                await client.frame()
            server.clock.advance(1_000)
        assert _socket(door).code == 0
