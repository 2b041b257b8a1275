"""What waits to be written to a connection is bounded, whoever wrote it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import cast

import pytest
from typing_extensions import override

from holdfast.protocol.events import Message
from holdfast.protocol.messages import join_continued
from holdfast.server.gateway.connection import Connection
from holdfast.server.gateway.socket import WAITING_BYTES, WRITE_LIMIT, Socket
from holdfast.server.session.actor import Session
from holdfast.server.settings import GatewaySettings
from holdfast.server.store import Append, MemoryStore, StoredMessage, StoredSize
from tests.support.raw_client import PING, RawClient, frame
from tests.support.served import Client, Gate, Served, served, until

UNMETERED = GatewaySettings(
    commands_per_second=1e9, command_burst=10**9, heartbeat_ms=3_600_000, hello_seconds=60, hello_bytes=10**9
)
PINGS = frame(PING, b"x" * 125) * 500


def _all_connections(server: Served) -> list[Connection]:
    connections: Mapping[Connection, float] = server.gateway._connections  # pyright: ignore[reportPrivateUsage]
    return list(connections)


def _connection(server: Served) -> Connection:
    (connection,) = _all_connections(server)
    return connection


def _socket(connection: Connection) -> Socket:
    return connection._socket  # pyright: ignore[reportPrivateUsage]


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
        socket = _socket(_connection(server))
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
        connection = _connection(server)
        await _ping_until(client, _socket(connection), 2 * WRITE_LIMIT)
        for _ in range(30):
            sent = connection.wire.sent
            client.send(frame(PING, b"y"))
            client.send(frame(1, json.dumps({"type": "ping", "id": "p"}).encode()))
            for _ in range(5):
                await asyncio.sleep(0)
            assert connection.wire.sent == sent
            server.clock.advance(1_000)
        assert _socket(connection).code == 4003


async def test_reading_is_progress() -> None:
    """One that reads now and then stays, though something waits for it all the time."""
    async with served(settings=UNMETERED) as server, RawClient.open(server, live=True) as client:
        connection = _connection(server)
        for _ in range(30):
            await _ping_until(client, _socket(connection), 2 * WRITE_LIMIT)
            sent = connection.wire.sent
            _transport(client).resume_reading()
            while connection.wire.sent == sent:
                await client.frame()
            server.clock.advance(1_000)
        assert _socket(connection).code == 0


LARGE_SENDS = 40


async def test_pages_wait_for_their_reader() -> None:
    """A client that reads gets all of a long history; of one that does not only a page waits, however often it asks."""
    async with served(settings=UNMETERED) as server, server.client(hello={}) as writer:
        for number in range(LARGE_SENDS):
            await writer.send("send", id=f"r{number}", text=f"{number:03}" + "x" * 200_000)
            await writer.until("run.ended")
        async with server.client(hello={"messages": 0}, receive_buffer=4_096) as reader:
            connection = next(
                connection
                for connection in _all_connections(server)
                if connection.id == reader.received[0]["connection"]
            )
            reader.connection.transport.pause_reading()
            for number in range(3):
                await reader.send("history", id=f"h{number}", limit=200)
            await until(lambda: connection.wire.congested)
            for _ in range(20):
                await writer.ask("ping", id="p")
            assert _socket(connection).waiting < WRITE_LIMIT + 300_000
            reader.connection.transport.resume_reading()
            for number in range(3):
                found = await _history(reader, f"h{number}")
                texts = [str(message["parts"][0]["text"]) for message in found if message["role"] == "user"]
                assert [text[:3] for text in texts] == [f"{number:03}" for number in range(LARGE_SENDS)]
                assert {len(text) for text in texts} == {200_003}
            assert (await reader.ask("ping", id="p"))["outcome"] == "pong"


async def _history(client: Client, command_id: str) -> list[Message]:
    found: list[Message] = []
    while True:
        page = await client.until("page", id=command_id)
        found = join_continued(found, page["messages"])
        if page["last"]:
            return found


async def test_a_page_that_the_store_does_not_give_is_told() -> None:
    """In the middle of a reply too: the rest does not come, and the next command has its own."""
    silent = Silent()
    async with served(settings=UNMETERED, store=silent) as server, server.client(hello={}) as client:
        for number in range(4):
            await client.send("send", id=f"r{number}", text="x" * 250_000)
            await client.until("run.ended")
        server.clock.advance(2_000)
        await until(lambda: len(silent.archived) == 8)
        silent.calls_left = 4  # which messages there are, and some of them
        await client.send("history", id="h", limit=200)
        assert not (await client.until("page", id="h"))["last"]
        await until(lambda: silent.calls_left < 0)
        server.clock.advance(5_000)
        assert (await client.until("error", id="h"))["code"] == "unavailable"
        silent.calls_left = 10**9
        assert (await client.ask("ping", id="p"))["outcome"] == "pong"
        assert len(await _asked(client, "h2")) == 8


async def _asked(client: Client, command_id: str) -> list[Message]:
    await client.send("history", id=command_id, limit=200)
    return await _history(client, command_id)


class Silent(MemoryStore):
    """A store that, after so many reads of messages, says nothing any more."""

    calls_left = 10**9

    @property
    def archived(self) -> Mapping[int, StoredMessage]:
        """Of the session `s`."""
        return self._logs["s"].archive

    @override
    async def messages(self, session: str, before: int | None, limit: int) -> list[StoredMessage]:
        self.calls_left -= 1
        if self.calls_left < 0:
            await asyncio.get_running_loop().create_future()
        return await super().messages(session, before, limit)


async def test_history_waits_for_everything_before_it() -> None:
    """Asked while its connection lags, it comes behind all events up to the moment that it is of."""
    gate = Gate()
    async with served(gate.agent, settings=UNMETERED) as server, server.client(hello={}) as writer:
        async with server.client(hello={}, receive_buffer=4_096) as reader:
            connection = next(
                connection
                for connection in _all_connections(server)
                if connection.id == reader.received[0]["connection"]
            )
            reader.connection.transport.pause_reading()
            number = 0
            while connection.subscriber is None or not connection.subscriber.behind:
                await writer.send("send", id=f"r{number}", text="x" * 200_000, whenBusy="interrupt")
                await writer.until("run.started")
                number += 1
            await reader.send("history", id="h", limit=200)
            await writer.ask("ping", id="p")
            reader.connection.transport.resume_reading()
            page = await reader.until("page", id="h")
            events = {message["seq"] for message in reader.received if "seq" in message and "at" in message}
            assert events >= {message["seq"] for message in page["messages"]}
            while not page["last"]:
                page = await reader.until("page", id="h")
            assert page["messages"][-1]["seq"] <= max(events)
        await writer.send("cancel", id="k", runId=f"r{number - 1}")
        await writer.until("run.settled", runId=f"r{number - 1}")


class Held(Silent):
    """A store that knows which messages there are, and gives none of them while it is `held`."""

    held = False
    asked = 0

    @override
    async def messages(self, session: str, before: int | None, limit: int) -> list[StoredMessage]:
        if self.held:
            self.asked += 1
            await asyncio.get_running_loop().create_future()
        return await super().messages(session, before, limit)

    @override
    async def message_sizes(self, session: str, before: int | None, limit: int) -> list[StoredSize]:
        found = await super().messages(session, before, limit)
        return [StoredSize(message.seq, message.message_id, len(message.payload)) for message in found]


async def test_who_waits_for_a_catch_up_does_not_keep_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store holds up a snapshot, the commands behind it take no turn of the actor but their own; and
    history, which needs the same messages, is told that they cannot be had.
    """
    store = Held()
    turns = 0
    decide = Session.decide

    def counted(self: Session) -> Append | None:
        nonlocal turns
        turns += 1
        return decide(self)

    async with served(settings=UNMETERED, store=store) as server, server.client(hello={}) as writer:
        await writer.send("send", id="r1", text="hi")
        await writer.until("run.ended")
        server.clock.advance(2_000)
        await until(lambda: len(store.archived) == 2)
        store.held = True
        monkeypatch.setattr(Session, "decide", counted)
        async with server.client() as client:
            await client.send("hello")
            await client.until("welcome")
            for kind in ("ping", "history", "ping"):
                await client.send(kind, id=kind)
            for _ in range(500):
                await asyncio.sleep(0)
            assert turns < 10
        store.asked = 0
        async with server.client() as client:
            await client.send("hello")
            await client.until("welcome")
            await client.send("history", id="h")
            await until(lambda: store.asked == 2)
            server.clock.advance(5_000)
            assert (await client.until("error", id="h"))["code"] == "unavailable"
