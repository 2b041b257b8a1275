"""One meter for everything that a connection sends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.protocol import Event

from holdfast.server.gateway.connection import Connection
from holdfast.server.gateway.rates import Meter, TokenBucket
from holdfast.server.gateway.socket import Socket
from holdfast.server.settings import GatewaySettings
from tests.support.raw_client import BINARY, CONT, PING, PONG, TEXT, RawClient, close, frame, message
from tests.support.served import PATIENCE_SECONDS, served, until

SLOW = GatewaySettings(commands_per_second=1, command_burst=10, refusals_per_minute=20)


@pytest.mark.parametrize("kind", [PING, PONG, CONT], ids=["pings", "pongs", "fragments"])
@pytest.mark.parametrize("live", [False, True], ids=["before hello", "live"])
async def test_what_is_no_message_is_weighed(kind: int, live: bool) -> None:
    """Four control frames or fragments are one command; so many beyond the rate within a minute close with 4006."""
    first = frame(TEXT, b"{", fin=False) if kind == CONT else frame(kind)
    async with served(settings=SLOW) as server:
        for count, code in ((59, 1002), (60, 4006)):
            async with RawClient.open(server, live=live) as client:
                client.send(first, frame(kind, fin=kind != CONT) * (count - 1))
                if code == 1002:
                    client.send(b"\xff\xff")  # no frame
                assert await client.closed() == code


async def test_large_messages_weigh_more() -> None:
    """Each 64 KiB of a message count as one more command, in one piece or in fragments; refused, it has its id."""
    async with served(settings=SLOW) as server:
        for whole in (True, False):
            async with RawClient.open(server, live=True) as client:
                text = "x" * (8 * 65_536)
                sent = message("ping", id="p1", text=text)[14:]
                if whole:
                    client.send(frame(TEXT, sent))
                else:
                    client.send(frame(TEXT, sent[:-1], fin=False))
                    client.send(frame(CONT, sent[-1:]))
                # Let through, it is looked at: `text` is no field of ping.
                assert (await client.until("error"))["code"] == "invalid"
                client.send(message("ping", id="p2"), message("ping", id="p3"))
                assert (await client.until("error", id="p3"))["code"] == "rate_limited"


async def test_a_large_message_too_many_counts_as_many() -> None:
    """A client that goes on with large messages after it was refused is sent away sooner."""
    async with served(settings=SLOW) as server, RawClient.open(server, live=True) as client:
        client.send(*[message("ping", id=f"p{n}") for n in range(10)])
        await client.until("ack", id="p9")
        large = message("ping", id="l", text="x" * (10 * 65_536))
        client.send(large, large)
        assert await client.closed() == 4006


async def test_what_legal_clients_do_is_let_through() -> None:
    """A burst of a hundred commands, a proxy's pings, and one large message in many fragments."""
    async with served() as server, RawClient.open(server, live=True) as client:
        client.send(*[message("ping", id=f"p{n}") for n in range(100)])
        await client.until("ack", id="p99")
        for _ in range(20):
            server.clock.advance(1_000)
            client.send(frame(PING, b"proxy"))
            client.send(*[message("ping", id=f"q{n}") for n in range(49)])
            await client.until("ack", id="q48")
        server.clock.advance(2_000)
        pieces = 250
        client.send(frame(TEXT, b'{"type":"send","id":"r","text":"', fin=False))
        client.send(*[frame(CONT, b"x" * 1_000, fin=False) for _ in range(pieces)], frame(CONT, b'"}'))
        assert (await client.until("ack"))["outcome"] == "started"
        client.send(close())
        assert await client.closed() == 1000


async def test_a_client_that_was_shut_out_and_stays_is_cut() -> None:
    """What it still sends is thrown away, and it has the closing time to go."""
    async with served() as server, RawClient.open(server, live=True) as client:
        client.send(frame(PING) * 1_000)
        assert await client.closed() == 4006
        client.send(message("send", id="r", text="late"), frame(PING) * 1_000)
        async with server.client(hello={}) as other:
            await other.ask("ping", id="p")
            assert not other.of_type("run.started")
            for _ in range(7):
                server.clock.advance(1_000)
            await until(lambda: server.gateway.connections == 1)


async def test_a_client_that_was_sent_away_is_weighed_all_the_same() -> None:
    """One that goes on after the server began to close is not heard, and in the end not read either."""
    async with served() as server, RawClient.open(server, live=True) as client:
        await server.gateway.drain()
        client.send(message("ping", id="p") * 2_000)
        assert await client.closed() == 4001  # and the end of the stream, though it did not close


async def test_a_client_that_was_refused_can_leave() -> None:
    """However much it had sent ahead, its end is seen at once."""
    async with served(settings=SLOW) as server:
        async with RawClient.open(server, live=True) as client:
            client.send(message("ping", id="p") * 3_000)
            assert await client.closed() == 4006
        await until(lambda: server.gateway.connections == 0)


@pytest.mark.parametrize("flood", [frame(PING), frame(PONG), frame(TEXT, b"{}"), frame(BINARY), frame(CONT, fin=False)])
async def test_a_flood_is_taken_a_little_at_a_time(flood: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many frames were read in one go, others have their turns in between."""
    frames = 0

    def count(socket: Socket, event: Event) -> None:
        nonlocal frames
        frames += 1
        process_event(socket, event)

    async def take(connection: Connection, *arguments: Any) -> None:
        nonlocal frames
        frames += 1
        await take_frame(connection, *arguments)

    process_event, take_frame = Socket.process_event, Connection._frame  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(Socket, "process_event", count)
    monkeypatch.setattr(Connection, "_frame", take)
    settings = GatewaySettings(refusals_per_minute=10**6, violations_per_minute=10**6)
    async with served(settings=settings) as server, RawClient.open(server, live=True) as client:
        is_fragment = flood[0] & 0xF == CONT
        client.send(frame(TEXT, b"{", fin=False) if is_fragment else b"", flood * 3_000)
        client.send(frame(CONT, b"}") if is_fragment else b"", message("ping", id="last"))
        most, total, last = 0, 0, False

        async def replied() -> None:
            nonlocal last
            while True:
                opcode, payload = await client.frame()
                if opcode == TEXT and b'"last"' in payload:
                    last = True
                    return

        reading = asyncio.create_task(replied())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not last:
                frames = 0
                await asyncio.sleep(0)
                most, total = max(most, frames), total + frames
        await reading
        assert total >= 3_000
        assert most <= 1_000  # what was read in one go was all of it, 18 KB and more


@given(
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["message", "frame"]), st.integers(0, 300_000)), max_size=200)
)
def test_no_more_passes_than_the_rate(sent: list[tuple[float, str, int]]) -> None:
    """Whatever is sent when, what passes weighs no more than the burst, the time, and one last large message."""
    meter, now, passed, heaviest = Meter(SLOW, 0.0), 0.0, 0.0, 0.0
    for pause, kind, size in sent:
        now += pause
        if kind == "frame":
            meter.frame(now)
        elif not meter.message(size, now):
            passed += 1 + size // 65_536
            heaviest = max(heaviest, 1 + size // 65_536)
    assert passed <= 10 + now + heaviest + 1e-6


@given(st.floats(0.1, 100), st.integers(1, 100), st.floats(0.1, 300))
def test_who_waits_as_told_is_let_through(per_second: float, burst: int, cost: float) -> None:
    """After the seconds that it names, a bucket lets through what it refused, however much that is."""
    bucket = TokenBucket(per_second, burst, 0.0)
    assert bucket.take(0.0, burst) == 0.0
    wait = bucket.take(0.0, cost)
    assert wait > 0.0
    assert bucket.take(wait / 2, cost) > 0.0
    assert bucket.take(wait + 1e-6, cost) == 0.0
