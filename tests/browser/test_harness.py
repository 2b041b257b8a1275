"""The tests' own eyes: what goes wrong in a page is noticed, and a missing Chromium is told with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import executable
from tests.browser.conftest import Devices
from tests.browser.device import Device


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("console.error('a fault')", "console: a fault"),
        ("setTimeout(() => { throw new Error('a throw'); })", "a throw"),
        ("void Promise.reject(new Error('a rejection'))", "a rejection"),
    ],
)
async def test_what_goes_wrong_in_a_page_is_noticed(devices: Devices, script: str, told: str) -> None:
    """A console error, an uncaught error and an unhandled rejection are each kept, unless the test expects them."""
    context = await devices.context()
    device = Device(await context.new_page(), "about:blank")
    async with device.page.expect_event("console" if "console" in script else "pageerror"):
        await device.page.evaluate(script)
    assert [told in problem for problem in device.problems] == [True]
    device.expects(told)
    async with device.page.expect_event("console" if "console" in script else "pageerror"):
        await device.page.evaluate(script)
    assert len(device.problems) == 1


def test_a_missing_chromium_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither an empty PATH nor a wrong HOLDFAST_CHROMIUM is skipped over; the error says what to type."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("HOLDFAST_CHROMIUM", raising=False)
    with pytest.raises(RuntimeError, match="sudo apt install chromium"):
        executable()
    monkeypatch.setenv("HOLDFAST_CHROMIUM", str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match="sudo apt install chromium"):
        executable()
    program = tmp_path / "chromium"
    program.touch(mode=0o755)
    monkeypatch.setenv("HOLDFAST_CHROMIUM", str(program))
    assert executable() == str(program)
