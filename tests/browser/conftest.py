"""What the browser's tests share: one Chromium, servers started once, and devices whose mishaps fail the test."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Playwright, async_playwright, expect

from tests.browser.chromium import FLAGS, executable
from tests.browser.device import Device
from tests.support.program import ROOT, SECONDS, Serve
from tests.support.proxy import Proxy

WORDS_PER_SECOND = 100
_HERE = Path(__file__).parent
_REPORT = pytest.StashKey[pytest.TestReport]()

expect.set_options(timeout=SECONDS * 1000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the tests of this directory on the loop that the browser lives on."""
    marker = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if item.path.is_relative_to(_HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(marker, append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lets the teardown of a test know how the test went."""
    report = yield
    if report.when == "call":
        item.stash[_REPORT] = report
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def playwright() -> AsyncGenerator[Playwright]:
    """What drives browsers."""
    async with async_playwright() as playwright:
        yield playwright


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(playwright: Playwright) -> AsyncGenerator[Browser]:
    """One Chromium for all tests."""
    async with await playwright.chromium.launch(executable_path=executable(), args=list(FLAGS)) as browser:
        yield browser


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    """A server with the demo agent, for all tests that do it no harm."""
    pace = str(WORDS_PER_SECOND)
    with Serve("--demo-words-per-second", pace, cwd=tmp_path_factory.mktemp("demo")) as server:
        yield server


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    """A server with the agents of `tests.browser.agents`, for all tests that do it no harm."""
    store = f"sqlite:///{tmp_path_factory.mktemp('stage')}/stage.db"
    with Serve("tests.browser.agents:server", "--store", store, cwd=ROOT) as server:
        yield server


@pytest.fixture
def session(request: pytest.FixtureRequest) -> str:
    """A session that no other test uses."""
    return re.sub(r"[^A-Za-z0-9._:~-]", "-", request.node.name)[:100]


class Devices:
    """Opens devices, each a browser of its own as far as a server can tell."""

    def __init__(self, browser: Browser) -> None:
        self.opened: list[Device] = []
        self.contexts: list[BrowserContext] = []
        self._browser = browser

    async def context(
        self, *, browser: Browser | None = None, phone: bool = False, bypass_csp: bool = False
    ) -> BrowserContext:
        """A browser of its own: nothing is stored in it."""
        size = (390, 844) if phone else (1280, 800)
        context = await (browser or self._browser).new_context(
            viewport={"width": size[0], "height": size[1]},
            reduced_motion="reduce",
            bypass_csp=bypass_csp,
        )
        context.set_default_timeout(SECONDS * 1000)
        self.contexts.append(context)
        return context

    async def open(
        self,
        server: Serve | Proxy,
        session: str,
        *,
        context: BrowserContext | None = None,
        phone: bool = False,
        live: bool = True,
    ) -> Device:
        """The page at a session, in a new context unless one is named."""
        context = context or await self.context(phone=phone)
        device = Device(await context.new_page(), f"http{server.url.removeprefix('ws')}/?session={session}")
        self.opened.append(device)
        await device.visit(live=live)
        return device

    async def duplicate(self, device: Device) -> Device:
        """Another tab at the same place that begins with a copy of what this one has stored."""
        async with device.context.expect_page() as opened:
            await device.page.evaluate("void window.open(location.href, '_blank')")
        copy = Device(await opened.value, device.url)
        self.opened.append(copy)
        await copy.live()
        return copy


@pytest_asyncio.fixture(loop_scope="session")
async def devices(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Devices]:
    """Opens devices. An error in any of their pages fails the test; of a test that failed, there are pictures."""
    opener = Devices(browser)
    yield opener
    report = request.node.stash.get(_REPORT, None)
    if report is not None and report.failed:
        for number, device in enumerate(opener.opened):
            drawn = await device.screenshot(tmp_path / f"device-{number}.png")
            report.sections.append((f"Device {number}", "\n".join([drawn, *device.problems])))
    for context in opener.contexts:
        await context.close()
    problems = [problem for device in opener.opened for problem in device.problems]
    assert not problems, "the page reports:\n" + "\n".join(problems)
