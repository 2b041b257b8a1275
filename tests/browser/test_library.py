"""The library in the page, as the console reaches it."""

from __future__ import annotations

from playwright.async_api import expect

from tests.browser.conftest import Devices
from tests.support.program import Serve


async def test_the_view_is_stable(demo: Serve, devices: Devices, session: str) -> None:
    """Two reads give the same object; a change gives a new one, in which all that did not change is the same; and what
    was handed out is never changed.
    """
    ana = await devices.open(demo, session)
    await ana.say("count to 3")
    await ana.until("view.runs.length && view.runs.every(run => run.status === 'ended')")
    found = await ana.page.evaluate(
        """async () => {
          const { session } = window.holdfast;
          const first = session.view;
          const frozen = JSON.stringify(first);
          const chunk = new Promise((resolve) => {
            const unsubscribe = session.subscribe((change) => {
              if (!change.events.some((event) => event.type === "run.chunk")) return;
              unsubscribe();
              resolve();
            });
          });
          const same = session.view === first;
          const run = session.send("count to 100");
          await chunk;
          const before = session.view;
          for await (const text of run) if (text.includes("50")) break;
          const after = session.view;
          await run.ended();
          return {
            same,
            another: after !== first && after !== before,
            oldMessages: first.messages.every((message, index) => after.messages[index] === message),
            message: before.messages.at(-1) !== after.messages.at(-1),
            runs: before.runs === after.runs,
            oldRun: first.runs[0] === after.runs[0],
            presence: before.presence === after.presence,
            untouched: JSON.stringify(first) === frozen,
          };
        }"""
    )
    assert found == dict.fromkeys(found, True)


async def test_a_run_is_read_as_it_comes(demo: Serve, devices: Devices, session: str) -> None:
    """`for await` gives the text of a run from its beginning, of another device's run too, and ends with the run."""
    ana, ben = await devices.open(demo, session), await devices.open(demo, session)
    await ana.say("count to 50")
    await ben.until("view.runs.length === 1")
    text = await ben.page.evaluate(
        """async () => {
          const { session } = window.holdfast;
          let text = "";
          for await (const chunk of session.run(session.view.runs[0].runId)) text += chunk;
          return text;
        }"""
    )
    assert text == f"Counting: {' '.join(map(str, range(1, 51)))}."
    await expect(ben.messages.last).to_contain_text(" 50.")


async def test_two_sessions_of_one_page_are_two(demo: Serve, devices: Devices, session: str) -> None:
    """A page may hold several sessions; each has its own log, and closing one leaves the other alone."""
    ana = await devices.open(demo, session)
    found = await ana.page.evaluate(
        """async (name) => {
          const { connect } = await import("/holdfast/index.js");
          const other = connect("/", { session: name });
          await other.live();
          const result = await other.send("count to 3").ended();
          other.close();
          return [result.reason, result.text, other.status, window.holdfast.session.view.messages.length];
        }""",
        f"{session}-other",
    )
    assert found == ["completed", "Counting: 1 2 3.", "closed", 0]
    await ana.live()
