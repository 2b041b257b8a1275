"""Reload, navigation and closing: none of them ends a run, and none of them loses a command."""

from __future__ import annotations

import pytest
from playwright.async_api import Error, expect

from tests.browser.conftest import Devices
from tests.browser.device import STOPPED
from tests.system.client import counted
from tests.system.program import Serve
from tests.system.wire import greeted


async def test_reload_during_a_run(demo: Serve, devices: Devices, session: str) -> None:
    """A page reloaded in the middle of an answer is the same device, goes on where it was, and shows the answer once,
    complete.
    """
    ana = await devices.open(demo, session)
    await ana.say("count to 300")
    await ana.reaches(50)
    device = await ana.device_id()
    ana.received.clear()
    await ana.page.reload()
    await ana.live()
    assert await ana.device_id() == device
    await expect(ana.answers.last).to_contain_text(" 300.")
    assert await ana.counted() == counted(300)
    await expect(ana.answers).to_have_count(1)
    await expect(ana.conversation.get_by_role("article")).to_have_count(2)
    welcome = next(message for message in ana.received if message["type"] == "welcome")
    assert (welcome["resume"], welcome["device"]) == ("tail", device)
    assert await ana.view("view.runs.map(run => run.reason)") == ["completed"]


async def test_reload_in_the_middle_of_a_stop(demo: Serve, devices: Devices, session: str) -> None:
    """A stop pressed without a network, and a reload before there is one again: the next page sends it, and what stood
    on the screen when it was pressed is kept.
    """
    ana = await devices.open(demo, session)
    await ana.watch_stop()
    await ana.say("count to 10000")
    await ana.reaches(30)
    await ana.offline()
    await ana.stop.click()
    shown = await ana.shown_at_stop()
    with pytest.raises(Error, match="ERR_INTERNET_DISCONNECTED"):
        await ana.page.reload()
    await ana.online()
    async with greeted(demo.url, session) as wire:
        assert not [event for event in wire.events if event["type"] == "run.ended"]
        await ana.page.reload()
        ended = await wire.type("run.ended")
    assert (ended["reason"], ended["device"]) == ("cancelled", await ana.device_id())
    await ana.stopped()
    assert await ana.counted() == shown


async def test_leaving_the_page_never_cancels(demo: Serve, devices: Devices, session: str) -> None:
    """The sender navigates away, another tab is closed, another browser too: the run goes on to its end without them,
    and whoever comes back by the history finds it whole.
    """
    async with greeted(demo.url, session) as wire:
        ana = await devices.open(demo, session)
        tab = await devices.open(demo, session, context=ana.context)
        ben = await devices.open(demo, session)
        await ana.say("count to 200")
        for device in (ana, tab, ben):
            await device.reaches(10)
        ana.expects("Page entered Back-Forward Cache")
        await ana.page.goto("about:blank")
        await tab.page.close(run_before_unload=True)
        await ben.context.close()
        ended = await wire.type("run.ended")
        assert ended["reason"] == "completed"
    await ana.page.go_back(wait_until="commit")  # from the back/forward cache nothing is loaded
    await ana.live()
    await expect(ana.answers).to_have_count(1)
    assert await ana.counted() == counted(200)
    await expect(ana.conversation).not_to_contain_text(STOPPED)
    sent = [message["type"] for device in (ana, tab, ben) for message in device.sent]
    assert "cancel" not in sent
