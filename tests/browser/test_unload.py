"""Reload, navigation and closing: none of them ends a run, and none of them loses a command."""

from __future__ import annotations

import pytest
from playwright.async_api import Error, Playwright, expect

from tests.browser.chromium import FLAGS, executable
from tests.browser.conftest import Devices
from tests.browser.device import NO_NETWORK, STOPPED, Device
from tests.support.plain_client import greeted
from tests.support.program import Serve
from tests.support.proxy import Proxy
from tests.support.python_client import counted


async def test_reload_during_a_run(demo: Serve, devices: Devices, session: str) -> None:
    """A page reloaded in the middle of a message is the same device, goes on where it was, and shows the message once,
    complete.
    """
    ana = await devices.open(demo, session)
    await ana.say("count to 200")
    await ana.reaches(50)
    device = await ana.device_id()
    ana.received.clear()
    await ana.page.reload()
    await ana.live()
    assert await ana.device_id() == device
    await expect(ana.messages.last).to_contain_text(" 200.")
    assert await ana.counted() == counted(200)
    await expect(ana.messages).to_have_count(1)
    await expect(ana.conversation.get_by_role("article")).to_have_count(2)
    welcome = next(message for message in ana.received if message["type"] == "welcome")
    assert (welcome["resume"], welcome["device"]) == ("tail", device)
    assert await ana.view("view.runs.map(run => run.reason)") == ["completed"]


async def test_reload_in_the_middle_of_a_stop(demo: Serve, devices: Devices, session: str) -> None:
    """A stop pressed without a network, and a reload before there is one again: the next page sends it, and what stood
    on the screen when it was pressed is kept.
    """
    async with Proxy(demo.port) as network, greeted(demo.url, session) as wire:
        ana = await devices.open(network, session)
        await ana.watch_stop()
        await ana.say("count to 10000")
        await ana.reaches(30)
        await gone(network, ana)
        await ana.stop.click()
        shown = await ana.shown_at_stop()
        await reloaded_in_vain(ana)
        assert (await wire.command("cancel", "k1", runId="nobody"))["outcome"] == "unknown_run"
        assert "run.ended" not in [event["type"] for event in wire.events]
        network.refusing = False
        await ana.page.reload()
        ended = await wire.type("run.ended")
        assert (ended["reason"], ended["device"]) == ("cancelled", await ana.device_id())
        await ana.stopped()
        assert await ana.counted() == shown


async def gone(network: Proxy, *tabs: Device) -> None:
    """Takes the network away from these tabs. Not by the browser's emulation, which ends with the page: what a page
    sends while it is being unloaded would go out.
    """
    for tab in tabs:
        tab.expects(NO_NETWORK)
    network.refusing = True
    network.cut()
    for tab in tabs:
        await tab.is_offline()


async def reloaded_in_vain(tab: Device) -> None:
    """Reloads without a network: what is left is the browser's own page about that."""
    with pytest.raises(Error, match="ERR_"):
        await tab.page.reload()
    await tab.page.wait_for_function("!('holdfast' in window)")


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
        await ana.page.goto("about:blank")
        await tab.page.close(run_before_unload=True)
        await ben.context.close()
        ended = await wire.type("run.ended")
        assert ended["reason"] == "completed"
    await ana.page.go_back()
    await ana.live()
    await expect(ana.messages).to_have_count(1)
    assert await ana.counted() == counted(200)
    await expect(ana.conversation).not_to_contain_text(STOPPED)
    sent = [message["type"] for device in (ana, tab, ben) for message in device.sent]
    assert "cancel" not in sent


async def test_a_duplicated_tab_reloads_into_its_own_commands(demo: Serve, devices: Devices, session: str) -> None:
    """A stop that a duplicated tab could not send yet is sent after its reload, also when the tab that it was copied
    from has been closed meanwhile.
    """
    async with Proxy(demo.port) as network:
        ana = await devices.open(network, session)
        duplicate = await devices.duplicate(ana)
        device = await duplicate.device_id()
        await ana.say("count to 10000")
        await duplicate.reaches(10)
        await gone(network, ana, duplicate)
        await duplicate.stop.click()
        await ana.page.close()
        await reloaded_in_vain(duplicate)
        network.refusing = False
        await duplicate.page.reload()
        await duplicate.stopped()
        assert await duplicate.device_id() == device


async def test_the_back_forward_cache(demo: Serve, devices: Devices, session: str, playwright: Playwright) -> None:
    """A page that was put away whole, with its socket cut, and taken out again, is live at once, and misses nothing."""
    browser = await playwright.chromium.launch(
        executable_path=executable(), args=list(FLAGS), ignore_default_args=["--disable-back-forward-cache"]
    )
    async with browser:
        ana = await devices.open(demo, session, context=await devices.context(browser=browser))
        ana.expects("Page entered Back-Forward Cache")
        await ana.say("count to 200")
        await ana.reaches(10)
        await ana.page.evaluate("window.mark = true")
        await ana.page.goto("about:blank")
        await ana.page.go_back(wait_until="commit")  # there is no other event: nothing is loaded
        await expect(ana.messages.last).to_contain_text(" 200.")
        assert await ana.page.evaluate("window.mark")
        await ana.live()
        assert await ana.counted() == counted(200)
        await ana.say("count to 3")
        await expect(ana.messages.last).to_contain_text("Counting: 1 2 3.")
