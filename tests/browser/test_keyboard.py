"""Everything by keyboard alone; the focus is never lost."""

from __future__ import annotations

from playwright.async_api import Locator, expect

from tests.browser.conftest import Devices
from tests.browser.device import Device
from tests.system.program import Serve

_MOST_STEPS = 80
"""No control is further away than so many presses of Tab."""


class Keyboard:
    """Hands that have no mouse."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._keys = device.page.keyboard

    async def press(self, key: str) -> None:
        """Presses a key; the focus must be somewhere afterwards."""
        await self._keys.press(key)

    async def to(self, target: Locator) -> None:
        """Presses Tab until the focus is there."""
        await target.wait_for()
        for _ in range(_MOST_STEPS):
            if await target.evaluate("element => element === document.activeElement"):
                return
            await self._keys.press("Tab")
        raise AssertionError(f"Tab does not lead to {target}")

    async def write(self, text: str) -> None:
        """Types where the focus is, and presses Enter."""
        await self._keys.type(text)
        await self._keys.press("Enter")

    async def somewhere(self) -> None:
        """Asserts that the focus is on something that can be seen."""
        focused = "document.activeElement !== document.body && document.activeElement.checkVisibility()"
        assert await self._device.page.evaluate(focused)


async def test_a_conversation_without_a_mouse(demo: Serve, devices: Devices, session: str) -> None:
    """Sending, stopping, steering, approving and cancelling from the run list; the focus never falls to nowhere."""
    ana = await devices.open(demo, session)
    hands = Keyboard(ana)
    await hands.to(ana.box)
    await hands.write("count to 10000")
    await ana.reaches(5)
    await expect(ana.box).to_be_focused()
    await hands.press("Escape")
    await ana.stopped()
    await expect(ana.box).to_be_focused()

    await hands.write("count to 10000")
    await ana.reaches(5)
    await hands.write("count to 7")
    await expect(ana.answers.last).to_contain_text("You told me: “count to 7”")
    await expect(ana.answers.last).to_contain_text("Counting: 1 2 3 4 5 6 7.")
    await ana.until("view.runs.every(run => run.status === 'ended')")
    await expect(ana.box).to_be_focused()

    await hands.write("delete my notes")
    await hands.to(ana.approval("delete").get_by_role("button", name="Approve", exact=True))
    await hands.press("Enter")
    await expect(ana.answers.last).to_contain_text("said yes: done.")
    await expect(ana.approval("delete").get_by_role("button")).to_have_count(0)
    await hands.somewhere()

    await hands.to(ana.box)
    await hands.write("count to 10000")
    await ana.reaches(5)
    run_id = await ana.view("view.runs.at(-1).runId")
    await hands.to(ana.cancel_of(run_id))
    await hands.press("Enter")
    await ana.stopped()
    await expect(ana.cancel_of(run_id)).to_have_count(0)
    await hands.somewhere()


async def test_the_enter_of_an_input_method_sends_nothing(demo: Serve, devices: Devices, session: str) -> None:
    """Enter that ends a composition neither sends nor answers, also where the composition is told to be over already."""
    ana = await devices.open(demo, session)
    await ana.say("ask me")
    answer = ana.conversation.get_by_role("textbox")
    await answer.fill("あな")
    await ana.box.fill("かな")
    for of_composition in ({"isComposing": True}, {"keyCode": 229}):
        for box in (ana.box, answer):
            await box.dispatch_event("keydown", {"key": "Enter", "bubbles": True, "cancelable": True, **of_composition})
    await expect(ana.box).to_have_value("かな")
    await expect(answer).to_be_enabled()
    await ana.box.fill("")
    await answer.press("Enter")
    await expect(ana.answers.last).to_contain_text("あな")
    assert [message["type"] for message in ana.sent if message["type"] in ("send", "steer", "answer")] == [
        "send",
        "answer",
    ]
