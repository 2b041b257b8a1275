"""What a message does while another is being written: steer, queue, interrupt, alongside."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Devices
from tests.browser.device import STOPPED
from tests.support.program import Serve


async def test_steer(demo: Serve, devices: Devices, session: str) -> None:
    """The same message goes on with what it was told, and what stood there stays."""
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    await ana.say("count to 10000")
    await ana.reaches(10)
    await ana.mode("Steer")
    await ana.box.fill("count to 4")
    await ana.button("Steer").click()
    for device in (ana, ben):
        await expect(device.messages).to_have_count(1)
        await expect(device.messages.last).to_contain_text("Counting: 1 2 3 4.")
        await expect(device.messages.last).to_contain_text("Counting: 1 2 3 4 5 6 7 8 9 10")
    await expect(ana.messages.last).to_contain_text("Steered by you")
    await expect(ben.messages.last).to_contain_text(f"({await ana.device_id()})")
    assert await ana.view("view.runs.map(run => run.reason)") == ["completed"]


async def test_queue(demo: Serve, devices: Devices, session: str) -> None:
    """The next run begins when this one is complete; until then it is listed as queued, and can be cancelled."""
    ana = await devices.open(demo, session)
    await ana.say("ask me")
    answer = ana.conversation.get_by_role("textbox")
    await expect(answer).to_be_visible()
    await ana.mode("Queue")
    await ana.say("count to 4")
    await ana.say("count to 5")
    await expect(ana.runs.filter(has_text="queued")).to_have_count(2)
    dropped = await ana.view("view.runs.at(-1).runId")
    await ana.cancel_of(dropped).click()
    await expect(ana.runs.filter(has_text="queued")).to_have_count(1)
    await answer.fill("Inês")
    await answer.press("Enter")
    await expect(ana.messages).to_have_count(2)
    await expect(ana.messages.first).to_contain_text("Then I call you Inês")
    await expect(ana.messages.last).to_contain_text("Counting: 1 2 3 4.")
    await ana.until("view.runs.every(run => run.status === 'ended')")
    assert await ana.view("view.runs.map(run => run.reason)") == ["completed", "completed", "cancelled"]


async def test_interrupt(demo: Serve, devices: Devices, session: str) -> None:
    """This message ends, as stopped, where it was on the screen, and the next one begins."""
    ana = await devices.open(demo, session)
    await ana.say("count to 10000")
    await ana.reaches(10)
    await ana.mode("Interrupt")
    await ana.say("count to 4")
    await expect(ana.messages).to_have_count(2)
    await expect(ana.messages.first).to_contain_text(STOPPED)
    await expect(ana.messages.last).to_contain_text("Counting: 1 2 3 4.")
    sent = next(message for message in ana.sent if message.get("whenBusy") == "interrupt")
    assert sent["seen"]["seq"] > 0
    assert await ana.view("view.runs.map(run => [run.reason, run.cause])") == [
        ["cancelled", "superseded"],
        ["completed", None],
    ]


async def test_alongside(demo: Serve, devices: Devices, session: str) -> None:
    """Two messages are written at the same time; each can be cancelled from the run list without the other."""
    ana = await devices.open(demo, session)
    await ana.say("count to 10000")
    await ana.reaches(5)
    await ana.mode("Alongside")
    await ana.say("count to 10000")
    await expect(ana.messages).to_have_count(2)
    await ana.reaches(5)
    first, second = await ana.view("view.runs.map(run => run.runId)")
    await ana.cancel_of(second).click()
    await expect(ana.messages.last).to_contain_text(STOPPED)
    assert await ana.view("view.runs.map(run => run.status)") == ["running", "ended"]
    await ana.cancel_of(first).click()
    await expect(ana.messages.first).to_contain_text(STOPPED)


@pytest.mark.parametrize("name", ["Steer", "Queue", "Interrupt", "Alongside"])
async def test_the_choice_is_for_a_busy_session(demo: Serve, devices: Devices, session: str, name: str) -> None:
    """Whatever is chosen, a message to a session in which nothing goes on is an ordinary one, which makes it busy: what
    is queued next waits for it.
    """
    ana = await devices.open(demo, session)
    await ana.mode(name)
    await ana.say("count to 10000")
    await ana.reaches(5)
    await ana.mode("Queue")
    await ana.say("count to 4")
    await expect(ana.runs.filter(has_text="queued")).to_have_count(1)
    assert await ana.view("view.runs.map(run => run.status)") == ["running", "queued"]


async def test_a_run_is_cancelled_by_its_name(demo: Serve, devices: Devices, session: str) -> None:
    """The buttons of the run list are called what stands on them, and then by what was asked."""
    ana = await devices.open(demo, session)
    await ana.say("count to 10000")
    await ana.button("Cancel run: count to 10000").click()
    await ana.stopped()


@pytest.mark.parametrize(
    ("button", "result"), [("Approve", "said yes: done."), ("Refuse", "said no, and so nothing happened.")]
)
async def test_an_approval(demo: Serve, devices: Devices, session: str, button: str, result: str) -> None:
    """The card says what is asked for, and its buttons decide it."""
    ana = await devices.open(demo, session)
    await ana.say("delete my notes")
    await expect(ana.approval("delete")).to_contain_text("delete my notes")
    await ana.approval("delete").get_by_role("button", name=button, exact=True).click()
    await expect(ana.messages.last).to_contain_text(result)
    await expect(ana.button("Approve")).to_have_count(0)


async def test_a_question(demo: Serve, devices: Devices, session: str) -> None:
    """An agent that asks for words gets what was typed into its card."""
    ana = await devices.open(demo, session)
    await ana.say("ask me")
    card = ana.page.get_by_role("group").filter(has_text="What shall I call you?")
    await card.get_by_role("textbox").fill("Inês <b>")
    await card.get_by_role("button", name="Answer", exact=True).click()
    await expect(ana.messages.last).to_contain_text("Then I call you Inês <b>, as")
