"""SIGTERM: runs may finish for a while, the others end as cancelled by the shutdown, and clients are sent away."""

from __future__ import annotations

import itertools
from pathlib import Path

from holdfast.client import connect
from tests.support.plain_client import Message, PlainClient, greeted
from tests.support.program import Serve
from tests.support.python_client import counted, ended, read, until


async def draining(wire: PlainClient) -> Message:
    """Sends until the server has heard its signal; what it replies then."""
    for number in itertools.count():
        reply = await wire.command("send", f"knock-{number}", text="count to 1", whenBusy="alongside")
        if reply["type"] == "error":
            return reply
    raise AssertionError("counting does not end")


async def test_a_drain_lets_short_runs_finish_and_sends_everybody_away(tmp_path: Path) -> None:
    """A short run completes, a long one ends `cancelled` by the shutdown, a queued one waits for the next server, whose
    clients come back by themselves.
    """
    pace = ("--demo-words-per-second", "50")
    with Serve(*pace, "--drain-ms", "2000", cwd=tmp_path) as first:
        async with (
            connect(first.url, session="short") as short,
            connect(first.url, session="long") as long,
            greeted(first.url, "long") as wire,
        ):
            finishing = await short.send("count to 40")
            endless = await long.send("count to 10000")
            waiting = await long.send("count to 4")
            texts = aiter(endless)
            said = await read(texts, up_to=" 5 ")
            await read(aiter(finishing), up_to=" 5 ")
            first.terminate()
            said += await read(texts)
            assert (await ended(finishing)).text == counted(40)
            assert (await ended(finishing)).reason == "completed"
            stopped = await ended(endless)
            assert (stopped.reason, stopped.cause, stopped.text) == ("cancelled", "shutdown", said)
            assert await wire.closed() == 4001
            goaway = next(message for message in wire.received if message["type"] == "goaway")
            assert 0 <= goaway["reconnectAfterMs"] <= 30_000
            assert [event["type"] for event in wire.events][-2:] == ["run.ended", "run.settled"]
            assert first.ended() == 0
            assert waiting.status == "queued"
            with Serve(*pace, cwd=tmp_path, port=first.port):
                assert (await ended(waiting)).text == counted(4)
                await until(short, lambda: short.status == "live")
                assert (await ended(finishing)).text == counted(40)


async def test_no_run_starts_during_a_drain(tmp_path: Path) -> None:
    """A send during the drain is refused with `draining`, which says that trying again is right."""
    with Serve("--demo-words-per-second", "50", "--drain-ms", "60000", cwd=tmp_path) as server:
        async with greeted(server.url, "s") as wire:
            await wire.command("send", "r1", text="count to 200")
            await wire.type("run.chunk")
            server.terminate()
            refused = await draining(wire)
            assert (refused["code"], refused["retryable"]) == ("draining", True)
            stopped = await wire.command("cancel", "k1", runId="r1")
            assert stopped["outcome"] == "cancelled"
            assert await wire.closed() == 4001
        assert server.ended() == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Who presses twice does not wait for the drain; the run ends as `lost` in the next server."""
    with Serve("--demo-words-per-second", "50", "--drain-ms", "600000", cwd=tmp_path) as server:
        async with greeted(server.url, "s") as wire:
            await wire.command("send", "r1", text="count to 10000")
            await wire.type("run.chunk")
            server.terminate()
            await draining(wire)
            server.terminate()
            await wire.closed()
        assert server.ended() == 0
    with Serve(cwd=tmp_path) as second:
        async with connect(second.url, session="s") as client:
            assert (await ended(client.run("r1"))).reason == "lost"
