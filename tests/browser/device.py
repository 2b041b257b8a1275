"""A device in a person's hands: one tab, seen by roles and names as a screen reader sees it, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from playwright.async_api import BrowserContext, ConsoleMessage, Error, Locator, Page, Request, WebSocket, expect

from tests.support.program import SECONDS

Message = Mapping[str, Any]

STOPPED: Final = re.compile("stopped", re.IGNORECASE)
OFFLINE: Final = re.compile("offline", re.IGNORECASE)
_LIVE: Final = re.compile(r"\blive\b", re.IGNORECASE)
NO_NETWORK: Final = (
    r"WebSocket connection to '\S+' failed|Failed to load resource: net::ERR_(INTERNET_DISCONNECTED|CONNECTION_)"
)
"""What Chromium itself writes to the console when there is no network, or no server."""
_LISTENERS: Final = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`Refused by the Content-Security-Policy: ${event.violatedDirective} ${event.blockedURI}`);
});
"""
_SHOWN: Final = """
() => {
  window.shownAtStop = [];
  const note = (event) => {
    const stop = event.type === "click" ? event.target.closest?.("button")?.innerText.trim() === "Stop"
      : event.key === "Escape";
    if (stop) window.shownAtStop.push(document.querySelector('[role="log"]').textContent);
  };
  document.addEventListener("click", note, true);
  document.addEventListener("keydown", note, true);
}
"""
_SHOWN_SINCE: Final = """
() => {
  window.shownSince = [];
  const log = document.querySelector('[role="log"]');
  const note = () => {
    const text = [...log.querySelectorAll('article.said')].at(-1)?.textContent ?? "";
    if (window.shownSince.at(-1) !== text) window.shownSince.push(text);
  };
  new MutationObserver(note).observe(log, { childList: true, characterData: true, subtree: true });
  note();
}
"""
_OF_ASSISTANT: Final = re.compile("^Message from (demo|stage|the assistant)$")
_COUNT: Final = re.compile(r"Counting:[ \d]*\.?")


class Device:
    """One tab on the page. `sent` and `received` hold every message of its WebSockets, in order."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.sent: list[Message] = []
        self.received: list[Message] = []
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        self._heard = asyncio.Event()
        self._devtools: Any = None  # Playwright types its replies as dictionaries of nothing in particular
        page.on("console", self._console)
        page.on("pageerror", self._page_error)
        page.on("websocket", self._websocket)
        page.on("request", self._request)

    async def visit(self, *, live: bool = True) -> None:
        """Goes to its address; `live`: returns when it is connected and up to date."""
        await self.page.add_init_script(_LISTENERS)
        await self.page.goto(self.url)
        if live:
            await self.live()

    @property
    def context(self) -> BrowserContext:
        """What its tabs share: storage that outlives them, and the network."""
        return self.page.context

    # ---- what is on the page

    @property
    def box(self) -> Locator:
        """Where a message is written."""
        return self.page.get_by_role("textbox", name="Message", exact=True)

    def button(self, name: str | re.Pattern[str]) -> Locator:
        """A button by its whole name."""
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def stop(self) -> Locator:
        """The button that stops, in Send's place."""
        return self.button("Stop")

    @property
    def conversation(self) -> Locator:
        """The messages."""
        return self.page.get_by_role("log", name="Conversation")

    @property
    def messages(self) -> Locator:
        """What the assistant said, oldest first."""
        return self.conversation.get_by_role("article", name=_OF_ASSISTANT)

    @property
    def runs(self) -> Locator:
        """The entries of the run list."""
        return self.page.get_by_role("region", name="Runs").locator("[data-run-id]")

    def cancel_of(self, run_id: str) -> Locator:
        """The button in the run list that cancels this run."""
        entry = self.page.get_by_role("region", name="Runs").locator(f'[data-run-id="{run_id}"]')
        return entry.get_by_role("button", name=re.compile("^Cancel"))

    @property
    def people(self) -> Locator:
        """The devices that are here."""
        return self.page.get_by_role("region", name="People").get_by_role("listitem")

    @property
    def connection(self) -> Locator:
        """How the connection is."""
        return self.page.get_by_role("status", name="Connection")

    def approval(self, name: str) -> Locator:
        """The card that asks whether this tool may do it."""
        return self.page.get_by_role("group", name=f"Approval: {name}")

    async def live(self) -> None:
        """Returns when it is connected and up to date."""
        await expect(self.connection).to_contain_text(_LIVE)

    async def is_offline(self) -> None:
        """Returns when it says that it is not connected."""
        await expect(self.connection).to_contain_text(OFFLINE)

    async def stopped(self) -> None:
        """Returns when the newest message is marked as stopped, and the page is ready for the next message."""
        await expect(self.messages.last).to_contain_text(STOPPED)
        await expect(self.stop).to_have_count(0)
        await expect(self.button("Send")).to_be_visible()

    # ---- what a person does

    async def say(self, text: str) -> None:
        """Writes a message and presses Enter."""
        await self.box.fill(text)
        await self.box.press("Enter")

    async def mode(self, name: str) -> None:
        """Chooses what Enter does while a message is written."""
        await self.page.get_by_role("radio", name=name).check(force=True)

    async def reaches(self, number: int) -> None:
        """Returns when the newest message has counted so far."""
        await expect(self.messages.last).to_contain_text(re.compile(rf"Counting:[ \d]* {number}[ .]"))

    async def watch_stop(self) -> None:
        """From now on, remembers what the conversation shows at the moment when Stop or Escape is pressed."""
        await self.page.evaluate(_SHOWN)

    async def shown_at_stop(self) -> str:
        """The counting that stood there when Stop or Escape was pressed for the first time."""
        return counting((await self.page.evaluate("window.shownAtStop"))[0])

    async def watch_message(self) -> None:
        """From the next press of Stop or Escape on, remembers all that the newest message shows."""
        await self.page.evaluate(
            f"""() => {{
              const begin = (event) => {{
                const pressed = event.type === "keydown" ? event.key === "Escape" : event.target.closest?.("button");
                if (!pressed) return;
                document.removeEventListener("keydown", begin, true);
                document.removeEventListener("click", begin, true);
                ({_SHOWN_SINCE})();
              }};
              document.addEventListener("keydown", begin, true);
              document.addEventListener("click", begin, true);
            }}"""
        )

    async def shown_since(self) -> list[str]:
        """The countings that the newest message has shown since then, each once for every time that it changed."""
        shown = [counting(text) for text in await self.page.evaluate("window.shownSince")]
        return [text for index, text in enumerate(shown) if index == 0 or shown[index - 1] != text]

    async def throttle(self, pace: str) -> None:
        """Chooses in the network panel how fast this tab's connection is."""
        panel = self.page.get_by_role("region", name="Network")
        if not await panel.is_visible():
            await self.button("Network").click()
        await panel.get_by_label("Throttle").select_option(label=pace)

    async def counted(self, index: int = -1) -> str:
        """What one message has counted, the newest by default."""
        message = self.messages.last if index == -1 else self.messages.nth(index)
        return counting(await message.text_content() or "")

    # ---- what the library says

    async def view(self, expression: str) -> Any:
        """Evaluates an expression of `view` and `session`, of the library in the page."""
        return await self.page.evaluate(
            f"() => {{ const session = window.holdfast.session; const view = session.view; return {expression}; }}"
        )

    async def until(self, expression: str, argument: Any = None) -> None:
        """Returns when an expression of `view`, `session` and `argument` is true in the page."""
        await self.page.wait_for_function(
            "argument => { const session = window.holdfast?.session; const view = session?.view;"
            f" return Boolean(view && ({expression})); }}",
            arg=argument,
        )

    async def device_id(self) -> str:
        """The id that the session knows this tab by."""
        return str(await self.view("session.device"))

    # ---- what went over the wire

    def acks_of(self, type_: str) -> list[Message]:
        """The replies to all commands of this type, in the order in which they came."""
        ids = {message["id"] for message in self.sent if message["type"] == type_}
        return [message for message in self.received if message.get("id") in ids]

    async def acked(self, type_: str, count: int = 1) -> Message:
        """The reply to the newest command of this type, when `count` of them have theirs."""
        async with asyncio.timeout(SECONDS):
            while len(acks := self.acks_of(type_)) < count:
                self._heard.clear()
                await self._heard.wait()
        return acks[-1]

    def chunks_after(self, ack: Message) -> list[Message]:
        """The chunks of the run named by an acknowledgement that came after it."""
        later = self.received[self.received.index(ack) + 1 :]
        return [message for message in later if message["type"] == "run.chunk" and message["runId"] == ack["runId"]]

    # ---- what went wrong

    def expects(self, pattern: str) -> None:
        """What matches may be written to the console."""
        self._expected.append(re.compile(pattern))

    async def offline(self) -> None:
        """Takes the network from all tabs of the context."""
        self.expects(NO_NETWORK)
        await self.context.set_offline(True)

    async def online(self) -> None:
        """Gives it back."""
        await self.context.set_offline(False)

    async def devtools(self, method: str, **parameters: Any) -> Any:
        """Asks Chromium itself; what it is told holds until the tab is closed."""
        if self._devtools is None:
            self._devtools = await self.context.new_cdp_session(self.page)
        return await self._devtools.send(method, parameters)

    async def stall(self, stalled: bool) -> None:
        """Whether this tab's network carries nothing, of which the tab is told nothing."""
        rule = {"urlPattern": "", "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        rules = [rule] if stalled else []
        await self.devtools("Network.enable")
        await self.devtools("Network.emulateNetworkConditionsByRule", offline=stalled, matchedNetworkConditions=rules)

    async def screenshot(self, path: Path) -> str:
        """Draws the page into a file; the file's name, or why there is none."""
        try:
            await self.page.screenshot(path=path)
        except Error as error:
            return f"{path.name}: {error.message}"
        return str(path)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._problem(f"console: {message.text} ({message.location['url']})")

    def _page_error(self, error: Error) -> None:
        self._problem(f"uncaught: {error.stack or error.message}")

    def _problem(self, text: str) -> None:
        if not any(pattern.search(text) for pattern in self._expected):
            self.problems.append(text)

    def _websocket(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: self._frame(frame, self.sent))
        socket.on("framereceived", lambda frame: self._frame(frame, self.received))

    def _frame(self, frame: bytes | str, messages: list[Message]) -> None:
        message: Any = json.loads(frame)
        messages.extend(cast("list[Message]", message) if isinstance(message, list) else [message])
        self._heard.set()

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)


def counting(text: str) -> str:
    """The last counting in a text."""
    found = _COUNT.findall(text)
    assert found, f"nobody counts in: {text}"
    return str(found[-1]).rstrip()
