"""Everything by keyboard alone; the focus is never lost."""

from __future__ import annotations

from playwright.async_api import Locator, expect

from tests.browser.conftest import Devices
from tests.browser.device import Device
from tests.support.plain_client import greeted
from tests.support.program import Serve

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
    await expect(ana.messages.last).to_contain_text("You told me: “count to 7”")
    await expect(ana.messages.last).to_contain_text("Counting: 1 2 3 4 5 6 7.")
    await ana.until("view.runs.every(run => run.status === 'ended')")
    await expect(ana.box).to_be_focused()

    await hands.write("delete my notes")
    await hands.to(ana.approval("delete").get_by_role("button", name="Approve", exact=True))
    await hands.press("Enter")
    await expect(ana.messages.last).to_contain_text("said yes: done.")
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
    """Enter that ends a composition neither sends nor answers, also where the composition is said to be over."""
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
    await expect(ana.messages.last).to_contain_text("あな")
    assert [message["type"] for message in ana.sent if message["type"] in ("send", "steer", "answer")] == [
        "send",
        "answer",
    ]


async def test_loading_the_past_by_keyboard(stage: Serve, devices: Devices, session: str) -> None:
    """The button that brings the past goes with the last of it, and the focus goes to the oldest message."""
    async with greeted(stage.url, session) as wire:
        for number in range(60):
            await wire.command("send", f"r{number}", text=f"hello {number}")
            await wire.type("run.ended", runId=f"r{number}")
    ana = await devices.open(stage, session)
    hands = Keyboard(ana)
    await expect(ana.messages.last).to_contain_text("You said: hello 59")
    earlier = ana.page.get_by_role("button", name="earlier messages")
    while await earlier.is_visible():
        count = await ana.messages.count()
        await earlier.focus()
        await hands.press("Enter")
        await expect(ana.messages.nth(count)).to_be_attached()
    oldest = ana.conversation.get_by_role("article").first
    await expect(oldest).to_contain_text("hello 0")
    await expect(oldest).to_be_focused()
    await expect(oldest).to_be_in_viewport()


async def test_the_ways_past_the_sessions(demo: Serve, devices: Devices, session: str) -> None:
    """The first stop of Tab leads past the list; a new session begins in the message box; the current one is seen."""
    ana = await devices.open(demo, session)
    hands = Keyboard(ana)
    await ana.button("New session").focus()
    await hands.press("Shift+Tab")
    await expect(ana.page.get_by_role("link", name="Skip to the conversation")).to_be_focused()
    await hands.press("Enter")
    await expect(ana.conversation).to_be_focused()
    await ana.live()
    assert len([message for message in ana.sent if message["type"] == "hello"]) == 1

    for _ in range(30):
        await hands.to(ana.button("New session"))
        await hands.press("Enter")
        await expect(ana.box).to_be_focused()
    await ana.page.goto(ana.url)
    await ana.live()
    current = ana.page.get_by_role("navigation", name="Sessions").locator("[aria-current]")
    await expect(current).to_contain_text(session)
    await expect(current).to_be_in_viewport()


async def test_an_address_that_names_no_session(demo: Serve, devices: Devices) -> None:
    """It is said, and the address is put right."""
    ana = await devices.open(demo, "no%20session")
    await expect(ana.page.get_by_text("“no session” cannot be the name of a session")).to_be_visible()
    assert ana.page.url.endswith("?session=default")
