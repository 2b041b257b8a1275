"""What seldom happens to a connection: more pongs than heartbeats, a drain that begins while it comes, and the like."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.protocol import CloseCode
from holdfast.server.gateway import http
from holdfast.server.settings import GatewaySettings
from tests.server.gateway.test_rates import SLOW
from tests.server.gateway.test_waiting import Held
from tests.support.raw_client import CLOSE, RawClient, message
from tests.support.served import served, until


async def test_only_as_many_pongs_are_free_as_were_asked_for() -> None:
    """One pong for each heartbeat is not weighed; those that come behind it are, as every other message."""
    async with served(settings=SLOW) as server, server.client(hello={}) as client:
        server.clock.advance(20_000)
        await client.until("ping")
        for _ in range(15):
            await client.send("pong")
        assert (await client.ask("ping", id="p")).get("code") == "rate_limited"


async def test_one_that_catches_up_gets_no_heartbeat() -> None:
    """While the store holds up what it missed it is not asked whether it lives, however well it reads."""
    store = Held()
    async with (
        served(store=store, settings=GatewaySettings(heartbeat_ms=1_000)) as server,
        server.client(hello={}) as writer,
    ):
        await writer.send("send", id="r", text="hi")
        await writer.until("run.ended")
        server.clock.advance(2_000)
        await until(lambda: len(store.archived) == 2)
        store.held = True
        async with server.client() as client:
            await client.send("hello")
            await client.until("welcome")
            server.clock.advance(1_000)
            assert (await client.ask("nonsense", id="n"))["code"] == "unknown_type"
            assert not client.of_type("ping")


async def test_one_without_a_hello_is_sent_away_when_the_drain_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that had shaken hands, and had no place yet, is closed at once; its hello is not heard."""
    response_to = http.response

    def respond_and_drain(*arguments: Any, **named: Any) -> Any:
        response = response_to(*arguments, **named)
        server.gateway._draining = True  # pyright: ignore[reportPrivateUsage]
        return response

    monkeypatch.setattr(http, "response", respond_and_drain)
    async with served() as server, RawClient.open(server) as client:
        client.send(message("hello"))
        opcode, payload = await client.frame()
        assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, CloseCode.DRAINING)


async def test_not_ready_while_the_node_drains() -> None:
    """A node that starts no run any more is no place for connections, though its gateway still takes them."""
    async with served() as server:
        await server.node.drain(0)
        assert (await server.get("/readyz"))[0] == 503


async def test_a_reason_is_cut_to_what_a_close_frame_holds() -> None:
    """One that is too long closes with its code all the same, and is cut between two characters."""
    async with served() as server, RawClient.open(server, live=True) as client:
        (connection,) = server.gateway._connections  # pyright: ignore[reportPrivateUsage]
        connection.wire.close(CloseCode.GOING_AWAY, "ü" * 100)
        opcode, payload = 0, b""
        while opcode != CLOSE:
            opcode, payload = await client.frame()
        assert (int.from_bytes(payload[:2]), payload[2:].decode()) == (CloseCode.GOING_AWAY, "ü" * 61)
