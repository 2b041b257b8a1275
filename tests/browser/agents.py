"""Agents for the browser's tests, served by `holdfast serve tests.browser.agents:server`.

| the text begins with | what happens |
|---|---|
| `silent` | nothing at all, until it is stopped |
| `hold ` | it says the rest of the text and then nothing more, until it is stopped |
| `spell ` | it says the rest of the text letter by letter, slowly enough that a page draws each |
| `rush` | small chunks of Markdown, some thousands in a second, until it is stopped |
| `fail` | it breaks down in the middle of its message |
| `hostile` | every kind of part again, with markup that acts if it is let, and an approval that waits |
| `show` | every kind of part that a message can have, and then nothing more, until it is stopped |
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Final, NoReturn

from holdfast.server import Run, Server
from holdfast.server.agents.demo import request

server = Server()

HOSTILE: Final = "<img src=x onerror=window.hostile=1>"
_LETTER_SECONDS: Final = 0.018
"""Longer than a frame of a screen."""
_CHUNKS_PER_REST: Final = 4
"""So many come between two ticks of the clock: fast, and most of them are still told apart."""


@server.agent("stage")
async def stage(run: Run) -> None:
    """Does what the message asks for."""
    asked = request(run.messages, run.run_id).text
    what, _, rest = asked.partition(" ")
    match what:
        case "silent":
            await _nothing()
        case "hold":
            await run.text(rest)
            await _nothing()
        case "spell":
            for letter in rest:
                await run.text(letter)
                await asyncio.sleep(_LETTER_SECONDS)
        case "rush":
            for number in itertools.count():
                await run.text(word(number))
                await asyncio.sleep(0 if number % _CHUNKS_PER_REST else 0.001)
        case "fail":
            await run.text("So far ")
            raise RuntimeError("the agent broke down, as it was asked to")
        case "show":
            await run.reasoning("First I think.")
            await run.text(
                "# A heading\n\nText with `code`, a [link](https://example.com/) and a list:\n\n- one\n- two\n\n"
            )
            await run.text("```python\nprint('code')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> a quotation\n\n")
            call = await run.tool_call("weather", {"city": "Lisbon"})
            await run.tool_result(call, output={"sky": "clear"})
            await run.text("And so on.")
            await _nothing()
        case "hostile":
            await run.reasoning(HOSTILE)
            call = await run.tool_call(HOSTILE, {HOSTILE: HOSTILE})
            await run.tool_result(call, output=HOSTILE)
            await run.tool_result(await run.tool_call("broken", HOSTILE), error=HOSTILE)
            await run.data(HOSTILE, {HOSTILE: [HOSTILE]})
            for url in ("javascript:window.hostile='source'", "https://attacker.example/source"):
                await run.source(url, HOSTILE)
                await run.file(url, title=HOSTILE, media_type="image/png")
            await run.ask("approval", call_id=call, name=HOSTILE, input={"what": HOSTILE})
        case _:
            await run.text(f"You said: {asked}")


def word(number: int) -> str:
    """The chunk of this number: prose that becomes paragraphs, lists and code, as a model writes it."""
    place = number % 200
    if place == 0:
        return f"\n\n## Part {number // 200 + 1}\n\n"
    if 100 <= place < 120:
        return f"\n- item {number}"
    if place == 120:
        return "\n\n```python\n"
    if 120 < place < 140:
        return f"line_{number} = {number}\n"
    if place == 140:
        return "```\n\n"
    return f"**w{number}** " if number % 10 == 0 else f"w{number} "


async def _nothing() -> NoReturn:
    """Returns only when it is cancelled."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("a future that nobody sets has no result")
