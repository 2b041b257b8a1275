"""The demo agent: it needs no key and no network, and shows what a session can do.

It says the same to a text each time, word by word at a set pace. What it looks for in the text:

| the text holds | what happens |
|---|---|
| `weather` or `tool` | one tool call, `weather`, with its result |
| `delete` or `approve` | it asks for an approval and goes on by the answer |
| `ask me` | it asks for a name and goes on with the answer |
| `think` | it reasons before it answers |
| `count to N` (up to 10,000) | it counts |
| `markdown` | headings, a list, a table, code and a quotation |
| `long` | a long message |
| anything else | a short message, and what to try |

A steer is repeated in the message, and what it asks for is done next.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast
from zlib import crc32

if TYPE_CHECKING:
    from holdfast.protocol.events import Message
    from holdfast.server.agents.run import Run

__all__ = ["demo_agent"]

WORDS_PER_SECOND: Final = 20.0
MAX_COUNT: Final = 10_000
_PATIENCE_MS: Final = 300_000
"""How long it waits for an answer."""

_WEATHER: Final = ("sunny", "cloudy", "rainy", "windy", "foggy", "clear")
_CITY: Final = re.compile(r"\bin ([A-Z][\w-]*(?: [A-Z][\w-]*)*)")
_COUNT: Final = re.compile(r"\bcount (?:up )?to (\d+)")
_PIECE: Final = re.compile(r"\S+\s*|\s+")
_LONG: Final = (
    "a session is one log, and everyone who connects reads the same one",
    "a lost connection ends nothing, and coming back brings what was missed",
    "a stop ends this message for everyone, and what was shown is what is kept",
    "a line typed while I speak steers me, and I go on with what you said",
)
_THOUGHT: Final = (
    "The question is whether to think about it at all. I am a demo, so there is nothing to find out. "
    "But thinking can be stopped like everything else, and what was shown of it is kept. "
)
_MARKDOWN: Final = """\
# Three days in Lisbon

A **plan** that is *made up*, with `code` and a [link](https://example.com/).

1. Alfama, early, before the trams are full
2. Belém by train
3. Sintra, all day

| day | where | km |
|---|---|---|
| 1 | Alfama | 6 |
| 2 | Belém | 9 |

```python
def days(plan):
    return [day for day in plan if day.sunny]
```

> It rains in November.

That was *everything* a page must know how to show.
"""


def demo_agent(words_per_second: float = WORDS_PER_SECOND) -> Callable[[Run], Awaitable[None]]:
    """The demo agent at this pace. Raises ValueError for a pace that is not above zero."""
    if not words_per_second > 0:
        raise ValueError("the demo agent's pace is above zero")

    async def demo(run: Run) -> None:
        """Does what the last message of the session asks for."""
        task = request(run.messages, run.run_id)
        speaker = _Speaker(run, words_per_second)
        if task.steers:
            await speaker.say(f"\n\nYou told me: “{task.steers[-1]}”. So: ")
        wanted = (task.steers or [task.text])[-1]
        words = wanted.lower()
        if "weather" in words or "tool" in words:
            await _weather(run, speaker, wanted)
        elif "delete" in words or "approve" in words:
            await _approval(run, speaker, wanted)
        elif "ask me" in words:
            await _question(run, speaker)
        else:
            if "think" in words:
                await speaker.think(_THOUGHT)
            for piece in pieces(wanted):
                await speaker.say(piece)
        await run.usage({"model": "demo", "inputWords": len(wanted.split()), "outputWords": speaker.words})

    return demo


class Request:
    """What a run is asked for: the user's message, and what it was told since."""

    def __init__(self, text: str, steers: Sequence[str]) -> None:
        self.text = text
        self.steers = steers


def request(messages: Sequence[Message], run_id: str) -> Request:
    """The request in a transcript as the run sees it: its own message, if there is one, is last."""
    steers: list[str] = []
    own = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    if own is not None and own.get("runId") == run_id:
        steers = [_text_of(part.get("parts")) for part in own["parts"] if part.get("kind") == "steer"]
    asked = [message for message in messages if message["role"] == "user"]
    mine = [message for message in asked if message.get("runId") == run_id] or asked
    return Request(_text_of(mine[-1]["parts"]) if mine else "", steers)


def pieces(text: str) -> Iterator[str]:
    """What it says, piece by piece, to a text that wants neither tool nor approval."""
    words = text.lower()
    count = _COUNT.search(words)
    if count is not None:
        last = min(int(count[1][:6]), MAX_COUNT)
        yield "Counting: "
        yield from (f"{number} " for number in range(1, last))
        yield f"{last}."
    elif "markdown" in words:
        yield _MARKDOWN
    elif "long" in words:
        yield "This is the demo agent, at length. "
        for number in range(1, 41):
            yield f"{number}. Remember that {_LONG[(number - 1) % len(_LONG)]}.\n"
        yield "That was all of it."
    else:
        yield f"This is Holdfast's demo agent, and no model. You said: “{_shortened(text)}”. "
        yield "Try “count to 1000” and stop me, or type another line while I count. "
        yield "“What is the weather in Lisbon?” makes me use a tool, and “delete my notes” makes me ask you first. "
        yield "I also know “think”, “ask me”, “markdown” and “long”."


async def _weather(run: Run, speaker: _Speaker, text: str) -> None:
    match = _CITY.search(text)
    city = match[1] if match else "Lisbon"
    await speaker.say(f"Let me look at the weather in {city}. ")
    call = await run.tool_call("weather", {"city": city})
    await speaker.rest()
    seed = crc32(city.encode())
    sky, celsius = _WEATHER[seed % len(_WEATHER)], 5 + seed % 25
    await run.tool_result(call, output={"city": city, "sky": sky, "celsius": celsius})
    await speaker.say(f"It is {sky} there, with {celsius} °C. (The demo agent made this up.)")


async def _approval(run: Run, speaker: _Speaker, text: str) -> None:
    await speaker.say("I will not do that unasked. ")
    call = await run.tool_call("delete", {"what": _shortened(text)})
    verdict = await run.ask(
        "approval", expires_ms=_PATIENCE_MS, call_id=call, name="delete", input={"what": _shortened(text)}
    )
    if verdict.outcome == "answered" and _approves(verdict.value):
        await run.tool_result(call, output={"deleted": True})
        await speaker.say(f"{verdict.by} said yes: done. (The demo agent has nothing to delete.)")
    elif verdict.outcome == "answered":
        await run.tool_result(call, error="refused")
        await speaker.say(f"{verdict.by} said no, and so nothing happened.")
    else:
        await run.tool_result(call, error="nobody answered in time")
        await speaker.say("Nobody answered in time, and so nothing happened.")


async def _question(run: Run, speaker: _Speaker) -> None:
    await speaker.say("Gladly. ")
    reply = await run.ask("input", expires_ms=_PATIENCE_MS, prompt="What shall I call you?")
    if reply.outcome == "answered":
        await speaker.say(f"Then I call you {_shortened(str(reply.value))}, as {reply.by} said.")
    else:
        await speaker.say("Nobody said anything, and so I call you nobody.")


class _Speaker:
    """Speaks word by word, at a pace that a busy event loop does not slow down in the long run."""

    def __init__(self, run: Run, words_per_second: float) -> None:
        self.words = 0
        self._run = run
        self._seconds = 1 / words_per_second
        self._due: float | None = None

    async def say(self, text: str) -> None:
        """Says `text`, with the pause of a word after each word."""
        await self._utter(self._run.text, text)

    async def think(self, text: str) -> None:
        """The same, as reasoning."""
        await self._utter(self._run.reasoning, text)

    async def _utter(self, utter: Callable[[str], Awaitable[None]], text: str) -> None:
        for word in _PIECE.findall(text):
            await utter(word)
            self.words += 1
            await self.rest()

    async def rest(self) -> None:
        """Waits until the next word is due."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        # A speaker that was held back does not run to make up for more than a second.
        due = max(self._due if self._due is not None else now, now - 1.0) + self._seconds
        self._due = due
        await asyncio.sleep(max(0.0, due - now))


def _approves(value: object) -> bool:
    return value is True or (isinstance(value, dict) and cast("dict[str, Any]", value).get("approved") is True)


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _text_of(parts: Any) -> str:
    return " ".join(part["text"] for part in parts or () if part.get("kind") == "text")
