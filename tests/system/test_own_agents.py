"""Agents of one's own: `module:server` from the current directory, the examples, and what goes wrong in them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from holdfast.client import Lagged, Reset, connect
from tests.support.program import ROOT, SECONDS, Serve, command, heard, holdfast, outcome, run_id_of, started
from tests.support.python_client import ended, until

ODD = """
import asyncio, time
from holdfast.server import Run, Server

server = Server()


@server.agent("broken")
async def broken(run: Run):
    yield "So far "
    raise RuntimeError("the secret of the server")


@server.agent("stubborn")
async def stubborn(run: Run) -> None:
    await run.text("I stay.")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@server.agent("blocking")
async def blocking(run: Run) -> None:
    await run.text("I think.")
    await run.to_thread(time.sleep, 3600)
"""


async def test_the_smallest_agent_is_stopped_and_steered(tmp_path: Path) -> None:
    """examples/assistant.py, served from the current directory, is steered and stopped without a line of its own."""
    with Serve("examples.assistant:server", "--store", f"sqlite:///{tmp_path}/a.db", cwd=ROOT) as server:
        # It talks until it is stopped, however long the programs that do it take to start.
        async with started(command("send", "a b c " + "and more " * 300, server=server)) as sender:
            run_id = await run_id_of(sender)
            await heard(sender, "c ")
            steered = await holdfast("steer", run_id, "x y z " + "and more " * 300, server=server)
            assert steered.code == 0
            assert "You said: x " in await heard(sender, "You said: x ")
            stopped = await holdfast("cancel", run_id, server=server)
            assert stopped.code == 0
            assert (await outcome(sender)).code == 130


async def test_an_approval_is_answered_from_another_device(tmp_path: Path) -> None:
    """examples/approval.py waits until a person on another device answers, over a reconnect if need be."""
    with Serve("examples.approval:server", "--store", f"sqlite:///{tmp_path}/a.db", cwd=ROOT) as server:
        async with started(command("send", "tidy up", server=server)) as sender:
            run_id = await run_id_of(sender)
            async with connect(server.url, session="default") as other:
                run = other.run(run_id)
                await until(other, lambda: run.status == "waiting")
            agreed = await holdfast("chat", server=server, given="y\n")
            assert "Allow delete_file" in agreed.err
            ended = await outcome(sender)
        assert ended.code == 0
        assert ended.out == "draft.txt is gone; local agreed.\n"


@pytest.mark.parametrize("characters", [20, 60])
async def test_a_script_stops_when_it_has_enough(demo: Serve, characters: int) -> None:
    """examples/stop_after.py reads, stops, and what is kept is what it had read."""
    script = [sys.executable, str(ROOT / "examples" / "stop_after.py"), str(characters)]
    async with started(script, env={"HOLDFAST_URL": demo.url}) as process:
        ended = await outcome(process)
    assert (ended.code, ended.err) == (0, "")
    stopped, kept = ended.out.splitlines()
    assert stopped.startswith("cancelled: 'Counting: 1 2 ")
    assert kept.removeprefix("kept: ") == stopped.removeprefix("cancelled: ")


async def test_what_goes_wrong_in_an_agent(tmp_path: Path) -> None:
    """An agent that raises fails its run with a safe sentence, the traceback in the server's log only; one that blocks
    or ignores its cancellation holds up nobody, and the log says which one it was.
    """
    (tmp_path / "odd.py").write_text(ODD)
    with Serve("odd:server", cwd=tmp_path, env={"HOLDFAST_GRACE_MS": "200"}) as server:
        failed = await holdfast("send", "x", "--session", "a", server=server)
        assert (failed.code, failed.out) == (1, "So far \n")
        assert "failed: " in failed.err
        assert "secret" not in failed.err
        assert "the secret of the server" in server.log.until("RuntimeError")
        async with connect(server.url, session="b") as client:
            for agent in ("stubborn", "blocking"):
                run = await client.send("x", agent=agent)
                await until(client, lambda run=run: run.text != "")  # type: ignore[misc]
                events = client.events()
                assert (await run.cancel()).outcome == "cancelled"
                async with asyncio.timeout(SECONDS):
                    async for event in events:
                        if not isinstance(event, (Reset, Lagged)) and event["type"] == "run.settled":
                            assert event["confirmed"] is False
                            break
                assert (await ended(run)).reason == "cancelled"
                assert run.id in server.log.until("agent ignores cancellation")
