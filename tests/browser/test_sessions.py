"""Several sessions, their past, and who may enter."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Error, expect

from tests.browser.conftest import Devices
from tests.browser.device import NO_NETWORK
from tests.support.plain_client import greeted
from tests.support.program import Serve
from tests.support.python_client import counted


async def test_switching_sessions(demo: Serve, devices: Devices, session: str) -> None:
    """A session that is left goes on, and is whole on return; nothing of one is shown in the other."""
    ana = await devices.open(demo, session)
    sessions = ana.page.get_by_role("navigation", name="Sessions")
    await ana.say("count to 150")
    await ana.reaches(10)
    await ana.button("New session").click()
    await expect(ana.messages).to_have_count(0)
    await ana.live()
    assert await ana.view("session.id") != session
    await ana.say("count to 3")
    await expect(ana.messages.last).to_contain_text("Counting: 1 2 3.")
    await sessions.get_by_text(session, exact=False).first.click()
    await ana.live()
    assert await ana.view("session.id") == session
    await expect(ana.messages.last).to_contain_text(" 150.")
    await expect(ana.messages).to_have_count(1)
    assert await ana.counted() == counted(150)
    assert "cancel" not in [message["type"] for message in ana.sent]
    await ana.page.go_back()
    await expect(ana.messages.last).to_contain_text("Counting: 1 2 3.")


async def test_the_past_is_loaded(stage: Serve, devices: Devices, session: str) -> None:
    """A long session opens at its end; scrolling up brings the rest, in order and nothing twice."""
    await converse(stage, session, 60)
    ana = await devices.open(stage, session)
    await expect(ana.messages.last).to_contain_text("You said: hello 59")
    await expect(ana.conversation).not_to_contain_text("You said: hello 30")
    await expect(ana.button("Load earlier messages")).to_be_visible()
    await ana.conversation.focus()
    while (count := await ana.messages.count()) < 60:
        await ana.page.keyboard.press("Home")
        await expect(ana.messages.nth(count)).to_be_attached()
    await expect(ana.page.get_by_role("button", name="earlier messages")).to_be_hidden()
    said = [await message.text_content() or "" for message in await ana.messages.all()]
    for number, text in enumerate(said):
        assert f"You said: hello {number}" in text


async def test_going_up_leaves_the_end(stage: Serve, devices: Devices, session: str) -> None:
    """A reader who goes up by little is not brought back, also where the page draws before the scroll is told of."""
    await converse(stage, session, 30)
    ana = await devices.open(stage, session)
    await expect(ana.messages.last).to_contain_text("You said: hello 29")
    went_up = await ana.conversation.evaluate(
        """async (log) => {
          const frame = () => new Promise(requestAnimationFrame);
          await frame();
          await frame();
          const end = log.scrollTop;
          requestAnimationFrame(() => { log.scrollTop -= 20; });
          document.dispatchEvent(new Event("visibilitychange"));  // the page draws in the same frame, right after that
          await frame();
          await frame();
          return end - log.scrollTop;
        }"""
    )
    assert went_up == 20


async def test_the_past_is_loaded_for_a_reader_at_the_top(stage: Serve, devices: Devices, session: str) -> None:
    """What was loaded is of no use once the view has begun anew: it is loaded again, without another scroll."""
    await converse(stage, session, 60)
    ana = await devices.open(stage, session)
    await expect(ana.messages.last).to_contain_text("You said: hello 59")
    count = await ana.messages.count()
    await ana.conversation.evaluate(
        """(log) => {
          const { session } = window.holdfast;
          session.history = async (options) => {
            delete session.history;
            const page = await session.history(options);
            const { view } = session;
            const anew = { ...view, messages: view.messages.map((message) => ({ ...message })) };
            const get = () => { delete session.view; return anew; };
            Object.defineProperty(session, "view", { get, configurable: true });
            return page;
          };
          log.scrollTop = 0;
        }"""
    )
    await expect(ana.messages.nth(count)).to_be_attached()


async def test_a_past_that_was_refused(stage: Serve, devices: Devices, session: str) -> None:
    """It is asked for once, and again when the reader wants it."""
    await converse(stage, session, 60)
    ana = await devices.open(stage, session)
    await expect(ana.messages.last).to_contain_text("You said: hello 59")
    await ana.conversation.evaluate(
        """(log) => {
          const { session } = window.holdfast;
          window.asked = 0;
          session.history = async () => { window.asked += 1; throw new Error("not now"); };
          log.scrollTop = 0;
        }"""
    )
    refused = ana.page.get_by_role("alert").get_by_text("Not done: not now")
    await expect(refused).to_be_visible()
    await ana.page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert await ana.page.evaluate("window.asked") == 1
    await ana.page.evaluate("delete window.holdfast.session.history")
    count = await ana.messages.count()
    await ana.button("Load earlier messages").click()
    await expect(ana.messages.nth(count)).to_be_attached()


async def test_a_server_that_asks_for_a_token(tmp_path: Path, devices: Devices) -> None:
    """The page asks for it, tells when it is wrong, and goes in when it is right; it never stands in the address."""
    with Serve(cwd=tmp_path, env={"HOLDFAST_TOKENS": "ana:right-token"}) as server:
        ana = await devices.open(server, "s", live=False)
        ana.expects(NO_NETWORK)
        token = ana.page.get_by_label("Token")
        await token.fill("wrong-token")
        await token.press("Enter")
        await expect(ana.page.get_by_role("alert")).to_be_visible()
        await token.fill("right-token")
        await token.press("Enter")
        await ana.live()
        assert await ana.view("view.principal") == "ana"
        assert "right-token" not in ana.page.url
        await ana.say("hello")
        await expect(ana.messages.last).to_contain_text("You said: “hello”.")


async def test_signing_out_and_in_again(tmp_path: Path, devices: Devices) -> None:
    """Sign out leaves nothing in the tab and asks who comes; who closes the dialog can have it back, and whoever signs
    in next goes on as another person.
    """
    with Serve(cwd=tmp_path, env={"HOLDFAST_TOKENS": "ana:token-of-ana,ben:token-of-ben"}) as server:
        ana = await devices.open(server, "s", live=False)
        ana.expects(NO_NETWORK)
        token = ana.page.get_by_label("Token")
        await expect(ana.button("Sign out")).to_have_count(0)
        await token.fill("token-of-ana")
        await token.press("Enter")
        await ana.live()
        await ana.say("hello")
        await expect(ana.messages.last).to_contain_text("You said: “hello”.")
        device = await ana.device_id()

        await ana.button("Sign out").click()
        await expect(token).to_be_visible()
        await expect(ana.messages).to_have_count(0)
        kept = await ana.page.evaluate("JSON.stringify(sessionStorage)")
        assert device not in kept
        assert "hello" not in kept
        assert "token-of-ana" not in kept

        await ana.page.keyboard.press("Escape")
        await expect(token).to_be_hidden()
        await expect(ana.page.get_by_text("This server wants to know who you are.")).to_be_visible()
        await expect(ana.page.get_by_text("4500")).to_have_count(0)
        await expect(ana.button("Sign out")).to_have_count(0)
        await ana.button("Sign in").click()
        await token.fill("token-of-ben")
        await token.press("Enter")
        await ana.live()
        assert await ana.view("view.principal") == "ben"
        assert await ana.device_id() != device


async def test_the_network_panel_cuts_this_tab_alone(demo: Serve, devices: Devices, session: str) -> None:
    """Cut: this tab is offline and says when it tries again, the other goes on; back: nothing is missing."""
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    await ana.say("count to 150")
    await ana.reaches(10)
    await ana.button("Network").click()
    panel = ana.page.get_by_role("region", name="Network")
    # It may be back before anybody has looked.
    await ana.page.evaluate(
        """() => {
          const { session } = window.holdfast;
          window.waits = [];
          session.subscribe(() => {
            const { status, nextAttemptAt } = session.view;
            if (status === "offline") window.waits.push(nextAttemptAt);
          });
        }"""
    )
    await panel.get_by_role("button", name="Cut connection").click()
    await ana.page.wait_for_function("window.waits.some((at) => at !== null)")
    await ben.reaches(40)
    await ana.live()
    for device in (ana, ben):
        await expect(device.messages.last).to_contain_text(" 150.")
        assert await device.counted() == counted(150)


async def test_the_policy_is_in_force(demo: Serve, devices: Devices, session: str) -> None:
    """Nothing but what the server serves may run or load here."""
    ana = await devices.open(demo, session)
    ana.expects("Content-Security-Policy|Content Security Policy|TrustedHTML|TrustedScript")
    refused = await ana.page.evaluate(
        """() => new Promise((resolve) => {
          const refused = new Set();
          document.addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
            refused.add(effectiveDirective);
            if (refused.size === 3) resolve([...refused].sort());
          });
          for (const [name, from] of [["img", "src"], ["link", "href"]]) {
            const element = document.createElement(name);
            element.rel = "stylesheet";
            element[from] = "https://attacker.example/";
            document.body.append(element);
          }
          try {
            document.body.insertAdjacentHTML("beforeend", "<p>markup</p>");
          } catch {
            // It is told as a violation as well.
          }
        })"""
    )
    assert refused == ["img-src", "require-trusted-types-for", "style-src-elem"]
    with pytest.raises(Error):
        await ana.page.add_script_tag(content="window.ran = true")
    assert await ana.page.evaluate("window.ran") is None


async def converse(server: Serve, session: str, count: int) -> None:
    """Fills a session with so many messages of both sides."""
    async with greeted(server.url, session) as wire:
        for number in range(count):
            await wire.command("send", f"r{number}", text=f"hello {number}")
            await wire.type("run.ended", runId=f"r{number}")
