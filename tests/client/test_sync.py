"""The client without asyncio, against the scripted server in another thread's loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from holdfast.client import ClientClosedError, ConnectionFailedError, UnknownRunError, sync
from holdfast.client.cli.show import wire
from holdfast.client.session import Session
from tests.client.fake_server import FakeServer


class ServerThread:
    """The scripted server in a loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.server = self.do(self._make())

    async def _make(self) -> FakeServer:
        server = FakeServer()
        await server.start()
        return server

    def do(self, script: Coroutine[Any, Any, Any]) -> Any:
        """Runs a script to its end."""
        return asyncio.run_coroutine_threadsafe(script, self.loop).result(10)

    def start(self, script: Coroutine[Any, Any, Any]) -> None:
        """Starts a script beside the test."""
        asyncio.run_coroutine_threadsafe(script, self.loop)

    def close(self) -> None:
        """The end of the loop and its thread."""
        self.do(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def server_thread() -> Iterator[ServerThread]:
    """A server to talk to from a thread without a loop."""
    server_thread = ServerThread()
    yield server_thread
    server_thread.close()


class Interrupted:
    """A future whose wait is interrupted by the person."""

    def __init__(self, future: Any) -> None:
        self.future = future

    def result(self) -> None:
        """Ctrl-C."""
        raise KeyboardInterrupt

    def cancel(self) -> bool:
        """As any future's."""
        return bool(self.future.cancel())


def interrupted(script: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Interrupted:
    """Runs it in the loop; whoever waits for it is interrupted."""
    return Interrupted(asyncio.run_coroutine_threadsafe(script, loop))


async def talk(server: FakeServer) -> None:
    """Says two words in the run of one send."""
    command = await server.command("send")
    await server.start_run(command["id"])
    await server.ack(command, "started", runId=command["id"], seq=len(server.log))
    await server.text(command["id"], "Hello ")
    await server.text(command["id"], "world")
    await server.end_run(command["id"])


def test_same_names(server_thread: ServerThread) -> None:
    """Sending, iterating, waiting and looking work without asyncio, with the names of the async client."""
    with sync.connect(server_thread.server.url, session="trip") as session:
        server_thread.start(talk(server_thread.server))
        run = session.send("hi")
        assert "".join(run) == "Hello world"
        result = run.wait()
        assert (result.reason, run.status, run.text) == ("completed", "ended", "Hello world")
        assert (session.status, session.position["seq"], session.principal) == ("live", 5, "ana")
        assert list(session.runs) == [run.id]
        assert [message["role"] for message in session.messages] == ["user", "assistant"]
        assert list(session.run(run.id)) == ["Hello world"]
        with pytest.raises(UnknownRunError):
            session.run("nobody").wait()
        events = session.events()
        server_thread.start(talk(server_thread.server))
        session.send("again")
        seen = list(zip(events, range(2), strict=False))
        assert [wire(item)["type"] for item, _ in seen] == ["message", "run.started"]
    session.close()
    assert not session._portal.alive  # pyright: ignore[reportPrivateUsage]


def test_interrupted_iteration_stops_nothing(server_thread: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while waiting for text gives up the wait; the run and the client go on."""
    with sync.connect(server_thread.server.url, session="trip") as session:
        events = iter(session.events())
        server_thread.do(server_thread.server.start_run("r-1"))
        next(events)
        next(events)
        assert session.run("r-1").status == "running"

        with monkeypatch.context() as patched:
            patched.setattr("holdfast.client.sync.submit_to_loop", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(iter(session.run("r-1")))
        assert session.run("r-1").status == "running"
        assert server_thread.server.silent()


def test_interrupted_cancel_is_sent(server_thread: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel whose call is interrupted by Ctrl-C, which leaves the block, has been sent before the goodbye."""

    async def stop(server: FakeServer) -> None:
        command = await server.command("cancel")
        await server.ack(command, "cancelled", runId="r-1")

    with sync.connect(server_thread.server.url, session="trip") as session:
        server_thread.start(stop(server_thread.server))
        with monkeypatch.context() as patched:
            patched.setattr("holdfast.client.sync.submit_to_loop", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.cancel("r-1")
    server_thread.do(asyncio.wait_for(server_thread.server.left.wait(), 5))
    assert server_thread.server.heard == ["cancel", "goodbye"]


def test_nobody_there() -> None:
    """A server that is not there is the same error, and leaves no thread behind."""
    before = threading.active_count()
    with pytest.raises(ConnectionFailedError):
        sync.connect("ws://127.0.0.1:9", session="trip", open_timeout=0.01)
    assert threading.active_count() == before


def test_closed_client_still_shows(server_thread: ServerThread) -> None:
    """After close everything known is still shown, and a command raises ClientClosedError."""
    with sync.connect(server_thread.server.url, session="trip") as session:
        server_thread.start(talk(server_thread.server))
        run = session.send("hi")
        run.wait()
    assert (run.text, run.reason, session.run(run.id).status) == ("Hello world", "completed", "ended")
    assert session.status == "closed"
    assert run.id in repr(run)
    for command in (lambda: session.send("again"), run.cancel, run.wait, lambda: list(run)):
        with pytest.raises(ClientClosedError):
            command()


def test_methods_tell_about_themselves(server_thread: ServerThread) -> None:
    """A waiting method has the name, the docstring and the parameters of the coroutine method behind it."""
    assert inspect.getdoc(sync.Session.send) == inspect.getdoc(Session.send)
    with sync.connect(server_thread.server.url, session="trip") as session:
        assert inspect.getdoc(session.send) == inspect.getdoc(Session.send)
        assert "run_id" in inspect.signature(session.send).parameters
        assert session.send.__name__ == "send"
