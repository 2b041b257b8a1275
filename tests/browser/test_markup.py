"""Hostile markup in a message is shown, and never becomes anything that acts."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from playwright.async_api import expect

from tests.browser.conftest import Devices
from tests.browser.device import Device
from tests.support.plain_client import Message, PlainClient, greeted
from tests.support.program import Serve

# Each would set a flag, load something, or change the page, if the page let it.
HOSTILE: Final = (
    "<script>window.hostile='script'</script>",
    "<img src=x onerror=\"window.hostile='img'\">",
    "<svg onload=\"window.hostile='svg'\"><script>window.hostile='svg script'</script></svg>",
    "<style>*{display:none!important}</style>",
    "<iframe srcdoc=\"<script>parent.hostile='iframe'</script>\"></iframe>",
    "<a href=\"javascript:window.hostile='a'\">press</a>",
    "<details open ontoggle=\"window.hostile='toggle'\">x</details>",
    "<form action=\"javascript:window.hostile='form'\"><button>b</button></form>",
    "<base href=\"https://attacker.example/\"><meta http-equiv=refresh content='0;url=https://attacker.example/'>",
    "[press](javascript:window.hostile='link')",
    "[press](JaVaScRiPt:window.hostile='case')",
    "[press]( javascript:window.hostile='space')",
    "[press](java\tscript:window.hostile='tab')",
    "[press](&#106;avascript:window.hostile='entity')",
    "[press](vbscript:window.hostile)",
    "[press](data:text/html,<script>window.hostile='data'</script>)",
    "[press](https://good.example/\"onmouseover=\"window.hostile='quote')",
    '[press](https://good.example/ "title" onclick="window.hostile=\'title\'")',
    "[press](https://good.example/\n\"onclick=window.hostile='newline')",
    "![x](https://attacker.example/pixel.png)",
    "![x](x\"onerror=\"window.hostile='image')",
    "![x](data:image/svg+xml,<svg onload=alert(1)>)",
    "<javascript:window.hostile='autolink'>",
    "<https://attacker.example/autolink> and https://attacker.example/bare",
    "```html\n<script>window.hostile='fence'</script>\n<img src=x onerror=window.hostile=1>\n```\n",
    "```\"><script>window.hostile='info'</script>\nx\n```\n",
    "`<img src=x onerror=window.hostile='code'>`",
    "[x]: javascript:window.hostile='reference'\n\n[press][x]",
    "| <script>window.hostile='table'</script> | b |\n|---|---|\n| <img src=x onerror=window.hostile=1> | d |\n",
    "# <img src=x onerror=\"window.hostile='heading'\">\n",
    "> - <video><source onerror=\"window.hostile='video'\"></video>\n",
    "</article></div><script>window.hostile='closed'</script>",
    "&lt;img src=x onerror=window.hostile='entities'&gt;",
    "$$<img src=x onerror=window.hostile='math'>$$ \\(<b onclick=window.hostile=1>\\)",
)
_ELEMENTS: Final = """
a blockquote br button code del details div em footer h1 h2 h3 h4 h5 h6 header hr i b input li ol p pre s section small
span strong sub summary sup table tbody td th thead time tr ul
"""
ELEMENTS: Final = frozenset(_ELEMENTS.split())
"""What may stand within a message, the page's own marks of it included."""
AT_ONCE: Final = 15
"""So many messages are spelled at the same time."""
SCHEMES: Final = frozenset({"http", "https", "mailto"})
_INSPECT: Final = """
() => [...document.querySelectorAll('[role="log"] article *')].map((element) => ({
  name: element.localName,
  attributes: [...element.attributes].map((attribute) => [attribute.name, attribute.value]),
  href: element.localName === "a" ? element.href : "",
}))
"""


async def unharmed(device: Device) -> None:
    """Asserts that nothing acted, and that nothing stands in a message that could."""
    assert await device.page.evaluate("window.hostile") is None
    elements: list[dict[str, Any]] = await device.page.evaluate(_INSPECT)
    assert {element["name"] for element in elements} <= ELEMENTS
    for element in elements:
        for name, value in element["attributes"]:
            assert not name.startswith("on"), element
            assert name not in ("srcdoc", "src", "srcset", "formaction", "action", "style"), element
            assert "javascript:" not in value.lower(), element
        assert str(element["href"]).partition(":")[0] in SCHEMES | {""}, element
        if element["name"] == "input":
            assert ["type", "checkbox"] in element["attributes"], element
            assert "disabled" in dict(element["attributes"]), element
    assert {urlsplit(url).netloc for url in device.requests} == {urlsplit(device.url).netloc}


async def test_hostile_markup_does_not_execute(stage: Serve, devices: Devices, session: str) -> None:
    """Every text, whole and letter by letter, becomes only elements that are allowed; no script runs and nothing is
    loaded from elsewhere, also where no Content-Security-Policy helps. Snapshots are no different.
    """
    ana = await devices.open(stage, session)
    bare = await devices.open(stage, session, context=await devices.context(bypass_csp=True))
    async with greeted(stage.url, session) as wire:
        for number, text in enumerate(HOSTILE):
            await wire.command("send", f"whole-{number}", text=text)
            await wire.type("run.ended")
        for number, text in enumerate(HOSTILE):
            while number - len(spelled(wire)) >= AT_ONCE:
                await wire.type("run.ended")
            await wire.command("send", f"spell-{number}", text=f"spell {text}", whenBusy="alongside")
        while len(spelled(wire)) < len(HOSTILE):
            await wire.type("run.ended")
    for device in (ana, bare):
        await expect(device.messages).to_have_count(2 * len(HOSTILE))
        await device.until("view.runs.every(run => run.status === 'ended')")
        await unharmed(device)
    await bare.page.reload()
    await bare.live()
    await expect(bare.messages).not_to_have_count(0)
    await unharmed(bare)


def spelled(wire: PlainClient) -> list[Message]:
    """The ends of the runs that spelled."""
    return [event for event in wire.events if event["type"] == "run.ended" and str(event["runId"]).startswith("spell-")]


async def test_every_cut_of_hostile_markup(demo: Serve, devices: Devices, session: str) -> None:
    """Cut in two at any place, drawn between the pieces, a text becomes the same elements as in one piece."""
    ana = await devices.open(demo, session)
    differing = await ana.page.evaluate(
        """async (texts) => {
          const { Markdown } = await import("/page/markdown.js");
          const drawn = (...pieces) => {
            const root = document.createElement("div");
            const markdown = new Markdown(root);
            for (const piece of pieces) markdown.write(piece);
            markdown.end();
            root.normalize();
            return root.innerHTML;
          };
          const differing = [];
          for (const text of texts) {
            const whole = drawn(text);
            for (let at = 1; at < text.length; at += 1) {
              const cut = drawn(text.slice(0, at), text.slice(at));
              if (cut !== whole) differing.push([text.slice(0, at), text.slice(at), cut, whole]);
            }
            const letters = drawn(...text);
            if (letters !== whole) differing.push(["letters", text, letters, whole]);
          }
          return differing;
        }""",
        HOSTILE,
    )
    assert differing == []


async def test_hostile_names_and_values(stage: Serve, devices: Devices, session: str) -> None:
    """The names of tools, their arguments and results, prompts, sources and files are text wherever they stand."""
    context = await devices.context(bypass_csp=True)
    ana = await devices.open(stage, session, context=context)
    await ana.say("hostile")
    await expect(ana.page.get_by_role("group", name="Approval")).to_be_visible()
    await unharmed(ana)
    assert await ana.page.evaluate("window.hostile") is None
