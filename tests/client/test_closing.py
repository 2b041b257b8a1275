"""Leaving right after giving a command: it has been sent before the goodbye, within a bound."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from holdfast.client import (
    CancelOutcome,
    ClientClosedError,
    ForbiddenError,
    Session,
    Submitted,
    connect,
)
from tests.client.fake_server import FakeServer

OUTCOMES = {
    "send": "started",
    "cancel": "cancelled",
    "steer": "accepted",
    "withdraw": "withdrawn",
    "answer": "accepted",
}


tasks: list[asyncio.Task[Any]] = []
"""Those that nobody waits for."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that closes waits for no reply longer than a moment."""
    monkeypatch.setattr("holdfast.client.link.LINGER_SECONDS", 0.05)


@asynccontextmanager
async def replying(server: FakeServer) -> AsyncGenerator[None]:
    """A server that acknowledges every command."""

    async def reply() -> None:
        while True:
            command = await server.command()
            await server.ack(command, OUTCOMES[command["type"]], runId="r-1")

    task = asyncio.ensure_future(reply())
    yield
    task.cancel()
    await asyncio.wait([task])


async def left_alone(session: Session) -> None:
    """The call, and nothing else."""
    session.cancel("r-1")


async def made_a_task(session: Session) -> None:
    """A task that has not begun when the block is left."""
    tasks.append(asyncio.create_task(session.cancel("r-1")))


async def made_a_task_of_its_own(session: Session) -> None:
    """The same, of a coroutine that gives the command only when it begins."""

    async def stop() -> None:
        await session.cancel("r-1")

    tasks.append(asyncio.create_task(stop()))


async def gathered_and_cancelled(session: Session) -> None:
    """A gather that is given up."""
    gathered = asyncio.gather(session.cancel("r-1"), session.cancel("r-1"))
    gathered.cancel()
    with suppress(asyncio.CancelledError):
        await gathered


async def waited_too_short(session: Session) -> None:
    """A wait that ends before the reply can have come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await session.cancel("r-1")


async def left_by_an_error(session: Session) -> None:
    """An exception that leaves the block."""
    session.cancel("r-1")
    raise ZeroDivisionError


async def in_a_finally(session: Session) -> None:
    """A cancel that belongs to what a task does when it is cancelled itself, and is cancelled once more."""
    task = asyncio.current_task()
    assert task is not None
    try:
        task.cancel()
        await asyncio.sleep(0)
    finally:
        task.cancel()
        await session.cancel("r-1")


@pytest.mark.parametrize(
    "way",
    [
        left_alone,
        made_a_task,
        made_a_task_of_its_own,
        gathered_and_cancelled,
        waited_too_short,
        left_by_an_error,
        in_a_finally,
    ],
    ids=lambda way: way.__name__,
)
async def test_a_cancel_that_is_left_at_once_has_been_sent(
    server: FakeServer, way: Callable[[Session], Awaitable[None]]
) -> None:
    """However a program leaves right after a cancel, the server has it before the goodbye."""

    async def program() -> None:
        async with connect(server.url, session="trip") as session:
            await way(session)

    async with replying(server):
        await asyncio.wait([asyncio.ensure_future(program())])
        async with asyncio.timeout(5):
            await server.left.wait()
    assert server.heard[0] == "cancel"
    assert server.heard[-1] == "goodbye"


async def test_everything_that_was_given_is_sent_in_order(server: FakeServer) -> None:
    """Commands of every kind that are left alone are sent in their order, and their replies are told after the end."""
    async with replying(server), connect(server.url, session="trip") as session:
        given: Sequence[Submitted[object]] = [
            session.send("hi", run_id="r-1"),
            session.steer("shorter", run_id="r-1"),
            session.withdraw("s-1"),
            session.answer("r-1", "q", True),
            session.cancel("r-1"),
            session.cancel_all(),
            session.run("r-1").cancel(),
        ]
        await session.close()
        assert server.heard == ["send", "steer", "withdraw", "answer", "cancel", "cancel", "cancel", "goodbye"]
        for command in given:
            await command


async def test_a_command_can_be_awaited_twice(server: FakeServer) -> None:
    """What a call returns gives its outcome to whoever awaits it, also again, also as a task."""
    async with replying(server), connect(server.url, session="trip") as session:
        cancel = session.cancel("r-1")
        outcomes = [await cancel, await cancel, await asyncio.create_task(cancel)]
        assert outcomes == [CancelOutcome("cancelled", "r-1")] * 3
        assert server.heard == ["cancel"]


async def test_cancelling_one_wait_leaves_the_others(server: FakeServer) -> None:
    """Of two who wait for the same command, one gives up and the other gets the reply."""
    async with connect(server.url, session="trip") as session:
        first = asyncio.ensure_future(session.send("hi", run_id="r-1"))
        second = asyncio.ensure_future(session.send("hi", run_id="r-1"))
        command = await server.command("send")
        first.cancel()
        await asyncio.wait([first])
        await server.ack(command, "started", runId="r-1")
        assert (await second).id == "r-1"
        assert first.cancelled()


async def test_a_command_given_offline_waits_for_the_next_connection(server: FakeServer) -> None:
    """A cancel that is left while nobody is there is sent when the server is back within the bound."""
    async with connect(server.url, session="trip") as session:
        await server.stop()
        await session.changed()
        cancel = session.cancel("r-1")
        closing = asyncio.ensure_future(session.close())
        await asyncio.sleep(0)
        await server.start()
        command = await server.command("cancel")
        await server.ack(command, "cancelled", runId="r-1")
        await closing
        assert (await cancel).outcome == "cancelled"


async def test_a_silent_server_is_left_after_the_bound(
    server: FakeServer, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    """What has no reply in time is told to who waits for it and named in the log, and was written all the same."""
    async with connect(server.url, session="trip") as session:
        cancel = session.cancel("r-1")
        await session.close()
        with pytest.raises(ClientClosedError):
            await cancel
    command = await server.command("cancel")
    assert server.heard == ["cancel", "goodbye"]
    assert f"cancel {command['id']}" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_nothing_is_waited_for_without_commands(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for no question, and neither for a connection nor for time."""
    monkeypatch.setattr("holdfast.client.link.LINGER_SECONDS", 3_600)
    async with connect(server.url, session="trip") as session:
        asking = asyncio.ensure_future(session.history())
        await server.command("history")
    with pytest.raises(ClientClosedError):
        await asking


async def test_no_command_is_taken_while_it_closes(server: FakeServer) -> None:
    """Once closing has begun, a further command is refused at once, and its id was never used."""
    async with connect(server.url, session="trip") as session:
        session.cancel("r-1")
        closing = asyncio.ensure_future(session.close())
        command = await server.command("cancel")
        with pytest.raises(ClientClosedError):
            session.send("one more")
        await server.ack(command, "cancelled", runId="r-1")
        await closing
        assert server.heard == ["cancel", "goodbye"]


async def test_cancelling_the_close_ends_the_wait_and_closes(server: FakeServer) -> None:
    """Who cancels the closing waits for no replies any more: the client is closed, and what was given was written."""
    async with connect(server.url, session="trip") as session:
        session.cancel("r-1")
        closing = asyncio.ensure_future(session.close())
        await server.command("cancel")
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert session.status == "closed"
        assert server.heard == ["cancel", "goodbye"]


async def test_a_refusal_that_nobody_awaits_is_told(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    """A command that nobody awaits and the server refuses is told by asyncio, as a task that fails is."""
    async with connect(server.url, session="trip") as session:
        session.cancel("r-1")
        command = await server.command("cancel")
        error = {"type": "error", "id": command["id"], "code": "forbidden", "message": "no", "retryable": False}
        await server.say(error)
        await session.changed()
        gc.collect()
        assert "ForbiddenError" in caplog.text
        caplog.clear()
        cancel = session.cancel("r-1")
        await server.say({**error, "id": (await server.command("cancel"))["id"]})
        with pytest.raises(ForbiddenError):
            await cancel
        del cancel
        gc.collect()
        assert caplog.text == ""
