"""The end of a connection, and of the gateway: nothing is left behind, whatever others do."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from holdfast.server.gateway import http
from holdfast.server.gateway.auth import Principal
from holdfast.server.gateway.endpoint import Gateway
from holdfast.server.settings import GatewaySettings
from tests.server.gateway.test_commands import Slow
from tests.server.gateway.test_hello import Expiring, Stuck
from tests.support.doubles import settled
from tests.support.raw_client import PING, RawClient, close, frame, message
from tests.support.served import PATIENCE_SECONDS, served, until


async def test_refused_hellos_leave_nothing() -> None:
    """While the store is away, each client that is told so leaves no task, no job and no timer."""
    store, crowd = Stuck(), 50
    async with served(store=store) as server:
        async with RawClient.open(server) as first:
            first.send(message("hello"))
            await store.asked.wait()
            server.clock.advance(5_000)
            assert await first.closed() == 4005
        await until(lambda: server.gateway.connections == 0)
        session = server.node.sessions["s"]
        tasks, timers = len(asyncio.all_tasks()), server.clock.waiting
        for _ in range(crowd):
            async with RawClient.open(server) as client:
                client.send(message("hello"))
                await until(lambda: bool(session._mailbox.reads))  # pyright: ignore[reportPrivateUsage]
                server.clock.advance(5_000)
                assert (await client.until("error"))["code"] == "unavailable"
                assert await client.closed() == 4005
            await until(lambda: server.gateway.connections == 0)
        assert not session._mailbox.reads  # pyright: ignore[reportPrivateUsage]
        await settled()
        assert (len(asyncio.all_tasks()), server.clock.waiting) == (tasks, timers)
        store.gate.set()
        async with server.client(hello={}) as again:
            await again.ask("ping", id="p")
            assert len(session.subscribers.present) == 1


async def test_a_connection_takes_its_timers_and_tasks_along() -> None:
    """When it ends, its token's timer, its reads and its catch-up are gone, whatever they waited for."""
    store = Slow()
    async with served(store=store, authenticator=Expiring()) as server:
        expires_at = server.clock.now() + 60_000
        async with server.client(hello={"token": f"other:{expires_at}"}) as other:
            await other.send("send", id="r", text="hi")
            await other.until("run.ended")
            session = server.node.sessions["s"]
            await until(lambda: not session.workers)
            await server.clock.pass_ms(10_000)  # whatever was to follow from the run has
            timers, tasks = server.clock.waiting, len(asyncio.all_tasks())
            async with RawClient.open(server) as client:
                client.send(message("hello", token=f"until:{expires_at}"))
                await client.until("caughtUp")
                appends = store.appends
                store.open_gate.clear()
                await other.send("send", id="r2", text="hi")
                await until(lambda: store.appends > appends)
                client.send(message("ping", id="p"), message("history", id="h"))
                await until(lambda: bool(session._mailbox.reads))  # pyright: ignore[reportPrivateUsage]
                client.reset()
            await until(lambda: server.gateway.connections == 1)
            assert not session._mailbox.reads  # pyright: ignore[reportPrivateUsage]
            store.open_gate.set()
            await other.until("run.ended", runId="r2")
            await until(lambda: not session.workers)
            await server.clock.pass_ms(10_000)
            assert (server.clock.waiting, len(asyncio.all_tasks())) == (timers, tasks)


class Deaf:
    """An authenticator that answers nobody, and does not let itself be stopped before `let_go`."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let_go = asyncio.Event()

    async def authenticate(self, token: str | None) -> Principal:
        """Never, until it is let go."""
        self.asked.set()
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                """It does not care."""
        return Principal("late")


async def test_a_stop_has_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    """A connection that ends neither when it is closed nor cut nor cancelled is named in the log and left behind."""
    deaf = Deaf()
    async with served(authenticator=deaf) as server, RawClient.open(server) as client:
        try:
            client.send(message("hello"))
            await deaf.asked.wait()
            (connection,) = server.gateway._connections  # pyright: ignore[reportPrivateUsage]
            stopping = asyncio.create_task(server.gateway.stop())
            await server.clock.pass_ms(6_900)
            assert not stopping.done()
            await server.clock.pass_ms(200)
            assert stopping.done()
            assert connection.id in capsys.readouterr().out
            coroutines = [str(task.get_coro()) for task in asyncio.all_tasks()]
            assert not any("Server._close" in coroutine for coroutine in coroutines), "the library waits no more"
            assert await client.closed() in (0, 1001)
        finally:
            deaf.let_go.set()
        await until(lambda: server.gateway.connections == 0)


async def test_a_stop_cancels_what_does_not_end_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a connection's own waits are set to, it ends a second after it was cut."""
    authenticator = Expiring()
    settings = GatewaySettings(unavailable_seconds=600)
    async with served(authenticator=authenticator, settings=settings) as server, RawClient.open(server) as client:
        client.send(message("hello", token="slow"))
        await authenticator.asked.wait()
        stopping = asyncio.create_task(server.gateway.stop())
        await server.clock.pass_ms(6_100)
        assert stopping.done()
        assert server.gateway.connections == 0
        assert "left behind" not in capsys.readouterr().out


@pytest.mark.parametrize("code", [1000, 4001, 4006])
async def test_a_closed_connection_is_logged_with_its_code(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The one it was closed with, whoever began."""
    async with served() as server:
        async with RawClient.open(server, live=True) as client:
            if code == 4001:
                await server.gateway.drain()
            client.send(frame(PING) * 1_000 if code == 4006 else close(code))
            assert await client.closed() == code
        await until(lambda: server.gateway.connections == 0)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "connection closed" in line]
        assert f"code={code}" in line


async def test_a_lost_connection_is_logged_as_lost(capsys: pytest.CaptureFixture[str]) -> None:
    """With 1006, which no close frame has."""
    async with served() as server:
        async with RawClient.open(server, live=True) as client:
            client.reset()
        await until(lambda: server.gateway.connections == 0)
        assert "code=1006" in capsys.readouterr().out


async def test_a_stop_cuts_those_that_do_not_go() -> None:
    """One that neither reads nor closes is cut after the closing time; others are not waited for longer than needed."""
    async with served() as server, RawClient.open(server, live=True):
        stopping = asyncio.create_task(server.gateway.stop())
        await server.clock.pass_ms(4_900)
        assert not stopping.done()
        await server.clock.pass_ms(200)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await stopping
        assert server.gateway.connections == 0


async def test_a_stop_does_not_wait_for_connections_that_asked_for_nothing() -> None:
    """Browsers keep some open, just in case."""
    async with served() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.gateway.port)
        await until(lambda: len(server.gateway._sockets) == 1)  # pyright: ignore[reportPrivateUsage]
        async with asyncio.timeout(PATIENCE_SECONDS / 2):  # the library waits ten seconds for a request
            await server.gateway.stop()
        assert await reader.read() == b""
        writer.close()


async def test_a_stop_may_come_twice_or_first() -> None:
    """Stopping what was stopped, or was never started, does nothing; no timer of it is left."""
    async with served() as server:
        timers = server.clock.waiting
        await Gateway(server.node).stop()
        await server.gateway.stop()
        await server.gateway.stop()
        assert server.clock.waiting == timers - 1


async def test_one_that_comes_while_the_drain_begins_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that had shaken hands, and had no place yet, is told like all others."""
    response_to = http.response

    def respond_and_drain(*arguments: Any, **named: Any) -> Any:
        response = response_to(*arguments, **named)
        server.gateway._draining = True  # pyright: ignore[reportPrivateUsage]
        return response

    monkeypatch.setattr(http, "response", respond_and_drain)
    async with served() as server, RawClient.open(server) as client:
        client.send(close(4001))
        assert await client.closed() == 4001


@pytest.mark.parametrize(("spread_ms", "latest_ms"), [(5_000, 5_000), (60_000, 30_000)])
async def test_clients_come_back_spread_over_a_while(
    spread_ms: int, latest_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between at once and the time that is set, which is cut at half a minute."""
    spans: list[tuple[int, int]] = []

    def latest(low: int, high: int) -> int:
        spans.append((low, high))
        return high

    monkeypatch.setattr(random, "randint", latest)
    settings = GatewaySettings(reconnect_spread_ms=spread_ms)
    async with served(settings=settings) as server, RawClient.open(server, live=True) as client:
        await server.gateway.drain()
        assert (await client.until("goaway"))["reconnectAfterMs"] == latest_ms
    assert spans == [(0, latest_ms)]


async def test_a_stop_while_too_many_commands_wait() -> None:
    """A connection that waits for room is no reason to wait for it for ever."""
    store = Slow()
    async with served(store=store, settings=GatewaySettings(commands_in_flight=1)) as server:
        async with RawClient.open(server, live=True) as client:
            store.open_gate.clear()
            client.send(*[message("send", id=f"r{n}", text="x", whenBusy="queue") for n in range(9)])
            (connection,) = server.gateway._connections  # pyright: ignore[reportPrivateUsage]
            await until(lambda: connection._room is not None)  # pyright: ignore[reportPrivateUsage]
            stopping = asyncio.create_task(server.gateway.stop())
            await server.clock.pass_ms(5_100)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await stopping
        store.open_gate.set()


async def test_a_pong_stands_behind_what_was_committed_before_it() -> None:
    """Commands that only read wait for the session: what is committed before them is sent before their reply."""
    store = Slow()
    async with served(store=store) as server, server.client(hello={}) as client:
        store.open_gate.clear()
        await client.send("send", id="r", text="x")
        await until(lambda: store.appends > 0)
        await client.send("ping", id="p")
        await until(lambda: bool(server.node.sessions["s"]._mailbox.reads))  # pyright: ignore[reportPrivateUsage]
        store.open_gate.set()
        pong = await client.until("ack", id="p")
        seqs = [m["seq"] for m in client.received if "." in m["type"] or m["type"] == "message"]
        assert pong["head"] == max(seqs)
        assert pong["head"] >= client.of_type("ack")[0]["seq"] > 0
