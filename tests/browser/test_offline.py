"""No network, by the browser's own emulation: an open socket is stalled, and a new one cannot be opened."""

from __future__ import annotations

import asyncio
from pathlib import Path

from playwright.async_api import expect

from tests.browser.conftest import WORDS_PER_SECOND, Devices
from tests.browser.device import NO_NETWORK, Device
from tests.support.plain_client import greeted
from tests.support.program import Serve
from tests.support.python_client import counted

OUTAGE_MS = 10_000


async def outage(device: Device) -> None:
    """Takes the network away until the page's own clock has gone on by ten seconds."""
    await device.offline()
    began = await device.page.evaluate("performance.now()")
    await device.is_offline()
    await device.page.wait_for_function(f"began => performance.now() - began >= {OUTAGE_MS}", arg=began)
    await device.online()


async def test_ten_seconds_offline(demo: Serve, devices: Devices, session: str) -> None:
    """During a run: the message goes on where it was, and is whole, without anything twice. During a stop: it arrives
    with the network, and what stood on the screen when it was pressed is kept. A send of that time is carried out once.
    """
    last = WORDS_PER_SECOND * (OUTAGE_MS // 1000 + 2)

    async def during_a_run() -> None:
        ana = await devices.open(demo, f"{session}-run")
        await ana.say(f"count to {last}")
        await ana.reaches(50)
        ana.received.clear()
        await outage(ana)
        await ana.live()
        await expect(ana.messages.last).to_contain_text(f" {last}.")
        assert await ana.counted() == counted(last)
        await expect(ana.conversation.get_by_role("article")).to_have_count(2)
        assert [message["resume"] for message in ana.received if message["type"] == "welcome"] == ["tail"]

    async def during_a_stop() -> None:
        ana = await devices.open(demo, f"{session}-stop")
        ben = await devices.open(demo, f"{session}-stop")
        await ana.watch_stop()
        await ana.say("count to 10000")
        await ana.reaches(50)
        await ana.offline()
        await ana.stop.click()
        await ana.is_offline()
        shown = await ana.shown_at_stop()
        await ana.mode("Queue")
        await ana.say("count to 4")
        await outage(ana)
        await ana.live()
        assert (await ana.acked("cancel"))["outcome"] == "cancelled"
        for device in (ana, ben):
            await expect(device.messages).to_have_count(2)
            await expect(device.messages.last).to_contain_text("1 2 3 4.")
            assert await device.counted(0) == shown
        assert await ana.view("view.pending") == []

    await asyncio.gather(during_a_run(), during_a_stop())


async def test_a_socket_that_is_open_and_dead(tmp_path: Path, devices: Devices) -> None:
    """A network that vanishes without a word is noticed by the silence of the heartbeat; the page is back by itself."""
    with Serve(cwd=tmp_path, env={"HOLDFAST_HEARTBEAT_MS": "1000"}) as server:
        ana = await devices.open(server, "s")
        ana.expects(NO_NETWORK)
        await ana.stall(True)
        await ana.is_offline()
        assert await ana.page.evaluate("navigator.onLine")
        await ana.stall(False)
        await ana.live()


async def test_send_and_stop_before_there_is_a_network(stage: Serve, devices: Devices, session: str) -> None:
    """A message sent and stopped without a network reaches the server as both: its run ends before it says anything."""
    ana = await devices.open(stage, session)
    await ana.offline()
    await ana.is_offline()
    await ana.say("silent")
    await ana.stop.click()
    assert await ana.view("view.pending.map(command => command.type)") == ["send", "cancel"]
    async with greeted(stage.url, session) as wire:
        await ana.online()
        ended = await wire.type("run.ended")
    assert ended["reason"] == "cancelled"
    await ana.stopped()
    await ana.until("view.pending.length === 0")
