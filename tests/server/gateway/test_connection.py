"""Many connections, slow ones, dead ones, and the end of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.protocol.transcript import Transcript
from holdfast.server.agents.run import Run
from holdfast.server.gateway.connection import Connection
from holdfast.server.gateway.socket import WAITING_BYTES
from holdfast.server.settings import GatewaySettings
from tests.support.served import CODECS, Client, Gate, Served, served, until

PIECES = 600
PIECE = "0123456789abcdef" * 512
"""8 KiB: with all pieces far more than the kernel and the transport take for a reader that stands still."""


class Torrent:
    """An agent that says more than a still reader can be sent, and then waits at the gate."""

    def __init__(self) -> None:
        self.said_all = asyncio.Event()
        self.gate = asyncio.Event()

    async def agent(self, run: Run) -> None:
        """Speaks."""
        for _ in range(PIECES):
            await run.text(PIECE)
            await asyncio.sleep(0)
        self.said_all.set()
        await self.gate.wait()
        await run.text("the end")


def _connection(server: Served, client: Client) -> Connection:
    connections: Mapping[Connection, float] = server.gateway._connections  # pyright: ignore[reportPrivateUsage]
    return next(connection for connection in connections if connection.id == client.received[0]["connection"])


async def _stand_still(client: Client) -> None:
    client.connection.transport.pause_reading()


def _folded(client: Client) -> str:
    """The message's text as a client folds it; every seq is covered once, in order."""
    transcript = Transcript()
    for message in client.received:
        kind = message["type"]
        if kind == "snapshot":
            loaded: Any = message
            transcript.load(loaded)
        elif kind == "message" or "." in kind:
            assert message.get("from", message["seq"]) == transcript.seq + 1, "a gap, or something twice"
            transcript.apply(message)
    return "".join(str(part.get("text", "")) for part in transcript.messages()[-1]["parts"])


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)
async def test_a_slow_reader_holds_nobody_up(codec: Any) -> None:
    """While one reader stands still the agent and the others go on, what waits for it is bounded, and when it reads
    again it gets all it missed, merged or by a snapshot.
    """
    torrent = Torrent()
    async with (
        served(torrent.agent) as server,
        server.client(codec=codec, hello={}) as fast,
        server.client(codec=codec, hello={}, receive_buffer=4_096) as slow,
    ):
        await _stand_still(slow)
        connection = _connection(server, slow)
        await fast.send("send", id="r", text="go")
        async with asyncio.timeout(30):
            while not torrent.said_all.is_set():
                await fast.receive()
            torrent.gate.set()
            await fast.until("run.ended")
        assert len(_folded(fast)) == PIECES * len(PIECE) + len("the end")
        assert connection.wire.congested
        waiting = connection._socket.transport.get_write_buffer_size()  # pyright: ignore[reportPrivateUsage]
        assert waiting < WAITING_BYTES / 4
        slow.connection.transport.resume_reading()
        async with asyncio.timeout(30):
            await slow.until("run.ended")
        assert _folded(slow) == _folded(fast)
        assert any("from" in message for message in slow.received) or len(slow.of_type("snapshot")) > 1
        assert (await slow.ask("ping", id="p"))["head"] == slow.received[-2]["seq"]


async def test_a_reader_that_stands_still_is_closed() -> None:
    """One that takes nothing for 20 s is closed as too slow; the others and the run are not touched."""
    torrent = Torrent()
    async with (
        served(torrent.agent, settings=GatewaySettings(heartbeat_ms=3_600_000)) as server,
        server.client(hello={}) as fast,
        server.client(hello={}, receive_buffer=4_096) as slow,
    ):
        await _stand_still(slow)
        connection = _connection(server, slow)
        await fast.send("send", id="r", text="go")
        async with asyncio.timeout(30):
            while not torrent.said_all.is_set():
                await fast.receive()
        server.clock.advance(1_000)
        server.clock.advance(19_000)
        closed_early = connection.wire.closed
        server.clock.advance(2_000)
        assert (closed_early, connection.wire.closed) == (False, True)
        slow.connection.transport.resume_reading()
        assert await slow.closed() == 4003
        torrent.gate.set()
        assert (await fast.until("run.ended"))["reason"] == "completed"


async def test_one_that_reads_no_close_is_cut() -> None:
    """A closing connection whose reader stands still is cut after the closing time, and leaves nothing behind."""
    torrent = Torrent()
    async with (
        served(torrent.agent, settings=GatewaySettings(heartbeat_ms=3_600_000)) as server,
        server.client(hello={}) as fast,
        server.client(hello={}, receive_buffer=4_096) as slow,
    ):
        await _stand_still(slow)
        await fast.send("send", id="r", text="go")
        async with asyncio.timeout(30):
            while not torrent.said_all.is_set():
                await fast.receive()
        server.clock.advance(30_000)
        await until(lambda: server.gateway.connections == 1)
        assert len(server.node.sessions["s"].subscribers.present) == 1


async def test_a_slow_reader_can_still_stop_a_run() -> None:
    """A cancel is read and done while its sender is being caught up."""
    torrent = Torrent()
    async with (
        served(torrent.agent) as server,
        server.client(hello={}) as fast,
        server.client(hello={}, receive_buffer=4_096) as slow,
    ):
        await _stand_still(slow)
        await fast.send("send", id="r", text="go")
        async with asyncio.timeout(30):
            while not torrent.said_all.is_set():
                await fast.receive()
        await slow.send("cancel", id="k", runId="r")
        assert (await fast.until("run.ended"))["reason"] == "cancelled"
        slow.connection.transport.resume_reading()
        ack = await slow.until("ack", id="k")
        assert ack["outcome"] == "cancelled"
        assert slow.of_type("run.ended")[0]["seq"] <= ack["seq"]


async def test_a_flood_of_replies_to_nobody_is_bounded() -> None:
    """Of a client that asks and asks and reads nothing only one reply lies in memory; reading, it gets them all."""
    async with served(settings=GatewaySettings(commands_per_second=1e9, command_burst=10**9)) as server:
        async with server.client(hello={}) as talker:
            await talker.send("send", id="r", text="x" * 200_000)
            await talker.until("run.ended")
        async with server.client(hello={"messages": 0}, receive_buffer=4_096) as client:
            connection = _connection(server, client)
            await _stand_still(client)
            for number in range(60):
                await client.send("history", id=f"h{number}")
            await until(lambda: connection.wire.congested)
            async with server.client("other", hello={}) as other:
                await other.ask("ping", id="p")  # what would have been written has been by now
            waiting = connection._socket.transport.get_write_buffer_size()  # pyright: ignore[reportPrivateUsage]
            assert waiting < WAITING_BYTES / 4
            client.connection.transport.resume_reading()
            for number in range(60):
                await client.until("page", id=f"h{number}")


async def test_heartbeats() -> None:
    """`ping` comes every heartbeat with the head; for a pong the connection stays; two without one end it."""
    async with served() as server, server.client(hello={}) as client:
        await client.send("send", id="r", text="hi")
        ended = await client.until("run.ended")
        for number in range(4):
            server.clock.advance(20_000)
            assert (await client.until("ping"))["head"] == ended["seq"]
            await client.send("pong")
            await client.ask("ping", id=f"p{number}")  # the pong was taken
        server.clock.advance(20_000)
        server.clock.advance(20_000)
        await client.until("ping")
        await client.until("ping")
        server.clock.advance(20_000)
        assert await client.closed() == 4004


async def test_any_sign_of_life_counts() -> None:
    """A client that sends commands need not be asked whether it lives."""
    async with served() as server, server.client(hello={}) as client:
        for number in range(6):
            server.clock.advance(20_000)
            assert (await client.ask("ping", id=f"p{number}"))["outcome"] == "pong"


async def test_heartbeats_are_spread() -> None:
    """Connections that came at different times are not asked at once, and nobody is left out."""
    async with served() as server, server.client(hello={}) as one:
        server.clock.advance(10_000)
        async with server.client(hello={}) as two:
            server.clock.advance(10_000)
            await one.until("ping")
            assert (await two.ask("ping", id="p"))["outcome"] == "pong"
            assert not two.of_type("ping")
            server.clock.advance(10_000)
            await two.until("ping")


async def test_drain_sends_everybody_away() -> None:
    """`goaway` with spread times for all, then 4001 in batches; runs are not touched."""
    gate = Gate()
    settings = GatewaySettings(drain_batch=2, reconnect_spread_ms=5_000)
    async with (
        served(gate.agent, settings=settings) as server,
        server.client(hello={}) as one,
        server.client(hello={}) as two,
        server.client(hello={}) as three,
        server.client("other", hello={}) as four,
    ):
        clients = (one, two, three, four)
        await one.send("send", id="r", text="go")
        await one.until("run.chunk")
        draining = asyncio.create_task(server.gateway.drain())
        goaways = [await client.until("goaway") for client in clients]
        assert all(0 <= goaway["reconnectAfterMs"] <= 5_000 for goaway in goaways)
        assert await one.closed() == await two.closed() == 4001
        assert not draining.done()
        assert sum(connection.wire.closed for connection in server.gateway._connections) < 4  # pyright: ignore[reportPrivateUsage]
        server.clock.advance(100)
        await draining
        assert await three.closed() == await four.closed() == 4001
        assert list(server.node.sessions["s"].workers) == ["r"]


async def test_stop_closes_what_is_left() -> None:
    """Stopping closes everybody with 1001 and leaves no connection, said hello or not."""
    async with served() as server, server.client(hello={}) as one, server.client() as two:
        await until(lambda: server.gateway.connections == 2)
        stopping = asyncio.create_task(server.gateway.stop())
        assert await one.closed() == 1001
        assert await two.closed() == 1001
        assert one.connection.close_reason == "the server stops"
        await stopping
        assert server.gateway.connections == 0


async def test_two_sessions_do_not_mix() -> None:
    """What is said in one session is not heard in another."""
    async with served() as server, server.client("a", hello={}) as one, server.client("b", hello={}) as two:
        await one.send("send", id="r", text="secret")
        await one.until("run.ended")
        await two.ask("ping", id="p")
        assert "secret" not in str(two.received)


async def test_events_reach_every_subscriber_alike() -> None:
    """The same seq is the same event for all, whatever their encoding."""
    json, msgpack = CODECS
    async with (
        served() as server,
        server.client(codec=json, hello={}) as one,
        server.client(codec=msgpack, hello={}) as two,
    ):
        await one.send("send", id="r", text="für alle 😀")
        await one.until("run.ended")
        await two.until("run.ended")

        def events(client: Client) -> list[dict[str, Any]]:
            return [m for m in client.received if "seq" in m and "at" in m and m["type"] not in _CONTROLS]

        assert events(one) == events(two)
        assert len(events(one)) >= 4


_CONTROLS = {"snapshot", "caughtUp", "ack"}
