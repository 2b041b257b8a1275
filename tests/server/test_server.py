"""A server in a program of one's own, and the event loop that `holdfast serve` runs on: they end in their time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from holdfast.server import Run, Server
from holdfast.server.process import run
from holdfast.server.store import MemoryStore

PATIENCE_SECONDS = 10
"""A test that waits longer than this has failed."""


class _Closing:
    """An agent with connections of its own, which it closes like this."""

    def __init__(self, *ways: BaseException | None) -> None:
        self.ways = list(ways)
        self.called = 0

    async def __call__(self, run: Run) -> None:
        """Never called here."""

    async def aclose(self) -> None:
        """Raises, or, where there is nothing to raise, does not end."""
        self.called += 1
        way = self.ways.pop()
        if way is not None:
            raise way
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue


@pytest.mark.parametrize(
    ("way", "told"),
    [
        (SystemExit(3), "an agent failed to close"),
        (ValueError("7"), "an agent failed to close"),
        (None, "agent was closed"),
    ],
)
async def test_an_agent_that_does_not_close_ends_and_holds_nothing(way: BaseException | None, told: str) -> None:
    """The others are closed too, the block is left in its time, and the log says which one it was."""
    server = Server()
    first, second = _Closing(way), _Closing(ValueError("of the second"))
    server.add_agent("first", first)
    server.add_agent("second", second)
    before = asyncio.all_tasks()
    with capture_logs() as logs:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with server.running(port=0, store="memory:"):
                pass
    assert (first.called, second.called) == (1, 1)
    assert told in [entry["event"] for entry in logs]
    assert "first" in str([entry for entry in logs if entry["event"] == told])
    assert asyncio.all_tasks() == before
    assert asyncio.get_running_loop().get_task_factory() is None


class _Silent(MemoryStore):
    """A store that does not come up."""

    @override
    async def start(self) -> None:
        await asyncio.Event().wait()


async def test_a_signal_ends_a_start() -> None:
    """A server whose store does not answer as it starts is not waited for."""
    server = Server()
    server.add_agent("first", _Closing())
    async with asyncio.timeout(PATIENCE_SECONDS):
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        await server.serve(port=0, store=_Silent())


async def test_a_cancelled_server_is_cancelled() -> None:
    """Whoever cancels `serve` without a signal is told that it was, as by any coroutine."""
    serving = asyncio.create_task(Server().serve(port=0, store=_Silent()))
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


class _Broken(MemoryStore):
    """A store that fails once it is up."""

    @override
    async def close(self) -> None:
        raise OSError("the disk is gone")


async def test_what_closing_the_store_raises_is_raised() -> None:
    """It is not swallowed, and the agents are closed all the same."""
    server, agent = Server(), _Closing(ValueError("7"))
    server.add_agent("first", agent)
    with pytest.raises(OSError, match="the disk is gone"):
        async with server.running(port=0, store=_Broken()):
            pass
    assert agent.called == 1


# The loop of a process


def test_what_main_raises_is_raised() -> None:
    """And what it returns ends the run of the loop."""

    async def fails() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        run(fails())

    async def exits() -> None:
        sys.exit(5)

    with pytest.raises(SystemExit):
        run(exits())


def test_callbacks_do_not_end_the_loop() -> None:
    """Neither by what they raise nor by stopping it: main goes on, and the log has the error."""
    done: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        old = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `serve` does, which listens to signals itself
        for call in (sys.exit, loop.stop, _raise_interrupt):
            loop.call_soon(call)
            await asyncio.sleep(0.001)
        signal.signal(signal.SIGINT, old)
        done.append(1)

    with capture_logs() as logs:
        run(main())
    assert done == [1]
    assert [type(entry["exc_info"]) for entry in logs] == [SystemExit, KeyboardInterrupt]


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_before_anybody_listens_ends_main() -> None:
    """Ctrl-C while a server starts is a person's, and not an agent's."""
    seen: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(_raise_interrupt)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    with pytest.raises(asyncio.CancelledError):
        run(main())
    assert seen == ["cancelled"]


def test_what_is_left_is_named_and_holds_nothing() -> None:
    """A task that ignores its cancellation, and generators that were never closed: signals are heard as before."""
    closed: list[str] = []
    let_go: list[bool] = []

    async def deaf() -> None:
        while not let_go:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append("stream")

    kept: list[object] = []

    async def main() -> None:
        generator = stream()
        await anext(generator)
        kept.extend([generator, asyncio.create_task(deaf(), name="a deaf one")])

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with capture_logs() as logs:
        run(main())
    assert closed == ["stream"]
    assert [entry["event"] for entry in logs] == ["tasks are left behind"]
    assert "a deaf one" in logs[0]["tasks"][0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    let_go.append(True)


def test_a_thread_that_goes_on_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and the process ends without it: with status 0, or 1 where main has failed."""
    ends = threading.Event()
    codes: list[int] = []
    exited = threading.Event()

    def exit_(code: int) -> None:
        codes.append(code)
        exited.set()

    monkeypatch.setattr("holdfast.server.process.LAST_SECONDS", 0.01)
    monkeypatch.setattr("holdfast.server.process.os._exit", exit_)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    tasks: list[asyncio.Task[bool]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(asyncio.to_thread(ends.wait)))
        await asyncio.sleep(0.01)

    async def fails() -> None:
        await main()
        raise OSError("no")

    try:
        for way, code in ((main, 0), (fails, 1)):
            with capture_logs() as logs:
                try:
                    run(way())
                except OSError:
                    assert way is fails
            assert [entry["event"] for entry in logs] == ["threads are left behind"]
            assert exited.wait(PATIENCE_SECONDS)
            exited.clear()
            assert codes.pop() == code
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "another signal does not take its status away"
    finally:
        ends.set()
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
