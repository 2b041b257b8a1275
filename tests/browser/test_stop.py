"""Stop: what stood on the screen is what is kept, wherever and however it is pressed."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Devices
from tests.browser.device import STOPPED
from tests.support.plain_client import greeted
from tests.support.program import Serve


async def test_what_the_page_showed_at_the_stop_is_kept(demo: Serve, devices: Devices, session: str) -> None:
    """After Stop the message is exactly what stood on the screen, marked as stopped: here, on another device and after
    a reload; nothing of the run comes after the acknowledgement; and the next message gets its run.
    """
    ana = await devices.open(demo, session)
    await ana.watch_stop()
    await ana.say("count to 10000")
    await ana.reaches(30)
    await ana.stop.click()
    await ana.stopped()
    shown = await ana.shown_at_stop()
    assert await ana.counted() == shown
    ack = await ana.acked("cancel")
    assert ack["outcome"] == "cancelled"
    await ana.say("count to 3")
    await expect(ana.messages.last).to_contain_text("Counting: 1 2 3.")
    assert ana.chunks_after(ack) == []
    ben = await devices.open(demo, session)
    await expect(ben.messages).to_have_count(2)
    assert await ben.counted(0) == shown
    await expect(ben.messages.first).to_contain_text(STOPPED)
    await ana.page.reload()
    await ana.live()
    await expect(ana.messages).to_have_count(2)
    assert await ana.counted(0) == shown
    await expect(ana.messages.first).to_contain_text(STOPPED)


async def test_stop_on_another_device(demo: Serve, devices: Devices, session: str) -> None:
    """A device that only watches stops the run; what it showed is kept on both, and the sender reads who it was."""
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    await ana.say("count to 10000")
    await ben.reaches(20)
    await ben.watch_stop()
    await ben.stop.click()
    await ben.stopped()
    await ana.stopped()
    shown = await ben.shown_at_stop()
    assert await ben.counted() == shown
    assert await ana.counted() == shown
    await expect(ben.messages.last).to_contain_text("Stopped by you")
    await expect(ana.messages.last).to_contain_text(await ben.device_id())


async def test_escape_stops(demo: Serve, devices: Devices, session: str) -> None:
    """Escape stops as the button does, and the message box keeps the focus."""
    ana = await devices.open(demo, session)
    await ana.watch_stop()
    await ana.say("count to 10000")
    await ana.reaches(10)
    await ana.page.keyboard.press("Escape")
    await ana.stopped()
    assert await ana.counted() == await ana.shown_at_stop()
    await expect(ana.box).to_be_focused()


@pytest.mark.parametrize("by", ["Escape", "run list", "End all"])
async def test_a_message_stands_still_from_the_press_on(demo: Serve, devices: Devices, session: str, by: str) -> None:
    """On a slow connection the text goes on coming until the server has the stop. None of it is shown, and when the
    run has ended nothing jumps: what stood there at the press is what is kept, while others read on until the end.
    """
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    await ana.throttle("Far away: 300 ms")
    await ana.say("count to 10000")
    if by == "End all":
        await ana.mode("Queue")
        await ana.say("count to 3")
        await expect(ana.button("End all")).to_be_visible()
    await ana.reaches(20)
    await ana.watch_message()
    if by == "Escape":
        await ana.page.keyboard.press("Escape")
    elif by == "End all":
        await ana.button("End all").click()
    else:
        await ana.cancel_of(await ana.view("view.runs.at(-1).runId")).click()
    await ana.stopped()
    cancel = next(message for message in ana.sent if message["type"] == "cancel")
    later = [m for m in ana.received if m["type"] == "run.chunk" and m["seq"] > cancel["seen"]["seq"]]
    assert len(later) > 5, "the stop was too quick to tell"
    assert await ana.shown_since() == [await ana.counted()]
    await ben.stopped()
    assert await ben.counted() == await ana.counted()


async def test_a_message_stands_still_after_a_stop_without_a_connection(
    demo: Serve, devices: Devices, session: str
) -> None:
    """A stop that waits for the connection: what has come meanwhile is not shown either."""
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    await ana.throttle("Far away: 300 ms")
    await ana.say("count to 10000")
    await ana.reaches(20)
    await ana.offline()
    await ana.is_offline()
    await ana.watch_message()
    await ana.page.keyboard.press("Escape")
    shown = await ana.counted()
    await ben.reaches(int(shown.split()[-1]) + 50)
    await ana.online()
    await ana.stopped()
    assert await ana.shown_since() == [shown]
    await ben.stopped()
    assert await ben.counted() == shown


async def test_a_stop_that_comes_too_late(demo: Serve, devices: Devices, session: str) -> None:
    """The message was complete when the server had the stop: all of it appears, and a line says so."""
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    await ana.say("ask me")
    await expect(ana.conversation.get_by_role("textbox")).to_be_visible()
    await ana.offline()
    await ana.is_offline()
    await ana.page.keyboard.press("Escape")
    await ben.conversation.get_by_role("textbox").fill("Inês")
    await ben.conversation.get_by_role("textbox").press("Enter")
    await ben.until("view.runs.every(run => run.status === 'ended')")
    await ana.online()
    for device in (ana, ben):
        await expect(device.messages.last).to_contain_text("Then I call you Inês")
    await expect(ana.messages.last).to_contain_text("It had already finished.")
    assert (await ana.acked("cancel"))["outcome"] == "already_ended"
    await expect(ana.button("Send")).to_be_visible()
    await expect(ben.messages.last).not_to_contain_text("finished")


async def test_stop_before_the_first_chunk(stage: Serve, devices: Devices, session: str) -> None:
    """A run that has said nothing yet is stopped by the first click, and its message is empty and marked as stopped."""
    ana = await devices.open(stage, session)
    await ana.say("silent")
    await ana.stop.click()
    await expect(ana.conversation).to_contain_text(STOPPED)
    await expect(ana.stop).to_have_count(0)
    assert (await ana.acked("cancel"))["outcome"] == "cancelled"
    assert await ana.view("view.runs.map(run => [run.status, run.reason])") == [["ended", "cancelled"]]


async def test_stop_in_the_same_breath_as_send(stage: Serve, devices: Devices, session: str) -> None:
    """Stop pressed before the server can have heard of the send ends the run, and no trace of a message stays."""
    ana = await devices.open(stage, session)
    await ana.page.evaluate(
        """() => {
          const run = window.holdfast.session.send("hold never to be seen");
          window.outcome = run.cancel();
        }"""
    )
    assert (await ana.page.evaluate("window.outcome"))["outcome"] == "cancelled"
    cancel = next(message for message in ana.sent if message["type"] == "cancel")
    assert cancel["ifUnknown"] == "prevent"
    await ana.until("view.runs.every(run => run.status === 'ended')")
    assert await ana.view("view.messages.flatMap(message => message.role === 'assistant' ? message.parts : [])") == []


async def test_stop_on_two_devices_at_once(demo: Serve, devices: Devices, session: str) -> None:
    """Both press before either has heard of the other: the run ends once, the later stop is told so politely, and both
    show the same message.
    """
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    async with greeted(demo.url, session) as wire:
        await ana.say("count to 10000")
        await asyncio.gather(ana.reaches(10), ben.reaches(10))
        await ben.stall(True)
        await ben.stop.click()
        await ana.stop.dblclick()
        assert (await ana.acked("cancel"))["outcome"] == "cancelled"
        await ben.stall(False)
        assert (await ben.acked("cancel"))["outcome"] == "already_ended"
        await asyncio.gather(ana.stopped(), ben.stopped())
        assert await ana.counted() == await ben.counted()
        await wire.command("ping", "p1")
        assert [event["type"] for event in wire.events].count("run.ended") == 1
