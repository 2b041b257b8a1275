"""Several devices in one session: who is here, and who was first."""

from __future__ import annotations

import re

from playwright.async_api import expect

from tests.browser.conftest import Devices
from tests.support.program import Serve


async def test_two_devices_answer_one_approval(demo: Serve, devices: Devices, session: str) -> None:
    """Whoever answers first decides; the other, who pressed without knowing, is told that it was answered already, and
    both show the same outcome.
    """
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    await ana.say("delete my notes")
    await expect(ben.approval("delete")).to_be_visible()
    await ben.offline()
    await ben.is_offline()
    await ben.approval("delete").get_by_role("button", name="Refuse", exact=True).click()
    await ana.approval("delete").get_by_role("button", name="Approve", exact=True).click()
    assert (await ana.acked("answer"))["outcome"] == "accepted"
    await expect(ana.messages.last).to_contain_text("said yes: done.")
    await ben.online()
    assert (await ben.acked("answer"))["outcome"] in ("already_answered", "already_ended")
    notice = ben.page.get_by_role("status").filter(has_text="Your refusal of delete came too late")
    await expect(notice).to_have_text(re.compile(r": (it had been answered|its run had ended) already\."))
    await expect(ben.messages.last).to_contain_text("said yes: done.")
    for device in (ana, ben):
        await expect(device.button("Approve")).to_have_count(0)
        await expect(device.conversation).not_to_contain_text("said no")
    await expect(ana.messages.last).to_contain_text("Approved by you")
    await expect(ben.messages.last).to_contain_text(re.compile(rf"Approved by \S+ \({await ana.device_id()}\)"))
    await ben.say("count to 2")
    await expect(ben.messages.last).to_contain_text("Counting: 1 2.")
    await expect(notice).to_have_count(0)


async def test_what_was_refused_did_not_fail(demo: Serve, devices: Devices, session: str) -> None:
    """The card of a tool call that was not allowed says so, and who refused it."""
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    await ana.say("delete my notes")
    await ana.approval("delete").get_by_role("button", name="Refuse", exact=True).click()
    for device, actor in ((ana, "you"), (ben, await ana.device_id())):
        card = device.messages.last.locator("summary")
        await expect(card).to_contain_text(re.compile(rf"Refused by .*{actor}.*refused"))
        await expect(card).not_to_contain_text("failed")


async def test_every_tab_is_a_device(demo: Serve, devices: Devices, session: str) -> None:
    """A second tab is another device of the same person, and so is a duplicated one, although it begins with a copy of
    what the first has stored; all are listed as here, and the one in hand is told apart.
    """
    ana = await devices.open(demo, session)
    tab = await devices.open(demo, session, context=ana.context)
    duplicate = await devices.duplicate(ana)
    ids = [await device.device_id() for device in (ana, tab, duplicate)]
    assert len(set(ids)) == 3
    for device, own in zip((ana, tab, duplicate), ids, strict=True):
        await expect(device.people).to_have_count(3)
        for id_ in ids:
            await expect(device.people.filter(has_text=id_)).to_have_count(1)
        await expect(device.people.filter(has_text=own)).to_contain_text("this device")
    await duplicate.page.reload()
    await duplicate.live()
    assert await duplicate.device_id() == ids[2]
    await tab.page.close()
    await expect(ana.people).to_have_count(2)
