"""Agents that try to end the process, and a process that is told to end while agents and readers do not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from holdfast.client import connect
from tests.support.program import Serve
from tests.support.python_client import ended, until

AGENTS = """
import asyncio, sys, time
from holdfast.server import Run, Server

server = Server()


@server.agent("still")
async def still(run: Run):
    yield "still "
    await asyncio.Event().wait()


@server.agent("exits")
async def exits(run: Run):
    yield "So far "
    sys.exit(3)


@server.agent("leaves")
async def leaves(run: Run):
    async def left():
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyboardInterrupt

    asyncio.get_running_loop().create_task(left(), name="the one left")
    await asyncio.sleep(0)
    yield "done"


@server.agent("calls-back")
async def calls_back(run: Run):
    asyncio.get_running_loop().call_soon(sys.exit, 7)
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)
    await asyncio.sleep(0.01)
    yield "here"


@server.agent("sweeps")
async def sweeps(run: Run):
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
    yield "swept"


@server.agent("deaf")
async def deaf(run: Run):
    yield "I stay. "
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@server.agent("blocked")
async def blocked(run: Run):
    yield "I wait. "
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 3600) for _ in range(40)))


@server.agent("asks")
async def asks(run: Run):
    yield "Well? "
    await run.ask("input", prompt="?")


@server.agent("asks-again", restartable=True)
async def asks_again(run: Run) -> None:
    await run.text(f"{run.attempt}. ")
    answer = await run.ask("input", prompt="?")
    await run.text(f"You said {answer.value}.")
"""
LEAST_SECONDS = 4.0
"""What a stop may take beyond `drain_ms`, by docs/operating.md."""
SLACK_SECONDS = 4.0
"""For a busy machine."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the module."""
    (tmp_path / "odd.py").write_text(AGENTS)
    return tmp_path


async def test_no_agent_ends_the_process(place: Path) -> None:
    """By `sys.exit` and KeyboardInterrupt in itself, in tasks and in callbacks; by stopping the loop and all tasks."""
    with Serve("odd:server", cwd=place) as server:
        async with connect(server.url, session="other") as other, connect(server.url, session="s") as client:
            witness = await other.send("go", agent="still")
            await until(other, lambda: witness.text != "")
            failed = await ended(await client.send("go", agent="exits"))
            assert (failed.reason, failed.text) == ("failed", "So far ")
            assert "SystemExit" in server.log.until("agent raised")
            assert (await ended(await client.send("go", agent="leaves"))).reason == "completed"
            assert "the one left" in server.log.until("agent left tasks behind")
            assert "KeyboardInterrupt" in server.log.until("agent raised")
            assert (await ended(await client.send("go", agent="calls-back"))).text == "here"
            assert "SystemExit" in server.log.until("raised in a callback")
            assert (await ended(await client.send("go", agent="sweeps"))).text == "swept"
            assert (await witness.cancel()).outcome == "cancelled"
            assert (await ended(witness)).text == "still "
        server.terminate()
        assert server.ended() == 0


@pytest.mark.parametrize(
    ("agents", "told"),
    [
        (("deaf", "deaf"), "agent ignores cancellation"),
        (("blocked",), "threads are left behind"),
        (("deaf", "blocked"), "threads are left behind"),
    ],
)
@pytest.mark.parametrize("signals", [1, 3])
async def test_whatever_agents_do_the_process_ends_in_its_time(
    place: Path, agents: tuple[str, ...], told: str, signals: int
) -> None:
    """`drain_ms` and four seconds after SIGTERM, with status 0; what was left is in the log, and the store is whole."""
    drain_ms = 300 if signals == 1 else 600_000
    with Serve("odd:server", "--drain-ms", str(drain_ms), cwd=place) as server:
        async with connect(server.url, session="s") as client:
            runs = [await client.send("go", agent=agent, when_busy="alongside") for agent in agents]
            for run in runs:
                await until(client, lambda run=run: run.text != "")  # type: ignore[misc]
            began = time.monotonic()
            server.terminate()
            server.out.until("Draining")
            for _ in range(signals - 1):
                server.terminate()
            code = await asyncio.to_thread(server.ended)
        most = (drain_ms / 1000 if signals == 1 else 0) + LEAST_SECONDS + SLACK_SECONDS
        assert time.monotonic() - began < most
        assert code == 0
        said = "".join(server.log.said)
        assert told in said
        assert "store not closed" not in said
    with Serve("odd:server", cwd=place) as second:
        async with connect(second.url, session="s") as client:
            reasons = {(await ended(client.run(run.id))).reason for run in runs}
            assert reasons == ({"cancelled"} if signals == 1 else {"lost"})


async def test_a_run_that_waits_for_a_person_is_not_drained_for(place: Path) -> None:
    """It ends at once, or is asked again by the next process where its agent is restartable, as after a crash."""
    with Serve("odd:server", "--drain-ms", "600000", cwd=place) as server:
        async with connect(server.url, session="s") as client, connect(server.url, session="t") as other:
            asks = await client.send("go", agent="asks")
            again = await other.send("go", agent="asks-again")
            await until(client, lambda: asks.status == "waiting")
            await until(other, lambda: again.status == "waiting")
            server.terminate()
            assert (await ended(asks)).cause == "shutdown"
            assert await asyncio.to_thread(server.ended) == 0
            with Serve("odd:server", cwd=place, port=server.port):
                await until(other, lambda: "2. " in again.text and again.status == "waiting")
                (request,) = again.requests
                assert (await again.answer(request["id"], "yes")).outcome == "accepted"
                assert (await ended(again)).text == "1. 2. You said yes."
