"""What axe-core finds: nothing, in every state, on a desk and on a phone, in the light and in the dark."""

from __future__ import annotations

from typing import Any, Final

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Devices
from tests.browser.device import Device
from tests.support.program import ROOT, Serve

AXE: Final = ROOT / "client" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
_RUN: Final = """
async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map((node) => node.html) }));
}
"""


async def no_violation(device: Device, state: str) -> None:
    """Asserts that axe-core has nothing to say, in both colour schemes."""
    if not await device.page.evaluate("'axe' in window"):
        await device.page.evaluate(AXE.read_text())
    for scheme in ("light", "dark"):
        await device.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        violations: list[dict[str, Any]] = await device.page.evaluate(_RUN)
        assert violations == [], f"{state}, {scheme}"


@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
async def test_axe_finds_no_violation(stage: Serve, demo: Serve, devices: Devices, session: str, phone: bool) -> None:
    """An empty session, a message being written with every kind of part, a stopped one, a failed one, an approval that
    waits, and the network panel.
    """
    ana = await devices.open(stage, session, phone=phone)
    await no_violation(ana, "empty")
    await ana.say("show")
    await expect(ana.conversation).to_contain_text("And so on.")
    await no_violation(ana, "streaming")
    await ana.box.fill("a steer")
    await no_violation(ana, "writing while it streams")
    await ana.box.fill("")
    await ana.stop.click()
    await ana.stopped()
    await ana.say("fail")
    await ana.until("view.runs.some(run => run.reason === 'failed')")
    await no_violation(ana, "stopped and failed")
    await ana.button("Network").click()
    await expect(ana.button("Cut connection")).to_be_visible()
    await no_violation(ana, "network panel")
    ben = await devices.open(demo, session, context=ana.context)
    await ben.say("delete my notes")
    await expect(ben.approval("delete")).to_be_visible()
    await no_violation(ben, "approval")
    width = await ben.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "nothing is wider than the screen"
