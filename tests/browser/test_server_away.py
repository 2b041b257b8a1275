"""The server dies, or is asked to go: the page says so, keeps what it showed, and is back with the next server."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from playwright.async_api import expect

from tests.browser.conftest import Devices
from tests.browser.device import NO_NETWORK, STOPPED
from tests.support.program import Serve

PACE = ("--demo-words-per-second", "100")


async def test_a_killed_server(tmp_path: Path, devices: Devices) -> None:
    """`kill -9` during a run: the page reconnects to the next server by itself, shows the run as lost with all the text
    that it had, and the next message gets its run.
    """
    with Serve(*PACE, cwd=tmp_path) as first:
        ana = await devices.open(first, "s")
        ana.expects(NO_NETWORK)
        await ana.say("count to 10000")
        await ana.reaches(30)
        first.kill()
        await ana.is_offline()
        shown = await ana.counted()
        await expect(ana.messages.last).to_be_visible()
    with Serve(*PACE, cwd=tmp_path, port=first.port):
        await ana.live()
        await expect(ana.messages.last).to_contain_text(re.compile(r"\blost\b", re.IGNORECASE))
        assert (await ana.counted()).startswith(shown)
        await ana.say("count to 3")
        await expect(ana.messages.last).to_contain_text("Counting: 1 2 3.")
        await expect(ana.messages).to_have_count(2)


async def test_a_drain(tmp_path: Path, devices: Devices) -> None:
    """SIGTERM: a run that takes too long ends as stopped by the shutdown, a queued one waits for the next server, and
    the page comes back to it by itself.
    """
    with Serve(*PACE, "--drain-ms", "500", cwd=tmp_path) as first:
        ana = await devices.open(first, "s")
        ana.expects(NO_NETWORK)
        await ana.say("count to 10000")
        await ana.reaches(20)
        await ana.mode("Queue")
        await ana.say("count to 4")
        await ana.until("view.runs.some(run => run.status === 'queued')")
        first.terminate()
        await expect(ana.messages.first).to_contain_text(STOPPED)
        await ana.is_offline()
        assert await asyncio.to_thread(first.ended) == 0
    with Serve(*PACE, cwd=tmp_path, port=first.port):
        await ana.live()
        await expect(ana.messages.last).to_contain_text("1 2 3 4.")
        assert await ana.view("view.runs.map(run => [run.reason, run.cause])") == [
            ["cancelled", "shutdown"],
            ["completed", None],
        ]
