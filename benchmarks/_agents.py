"""The agents that the benchmarks' server has: one that streams at a pace, and one that speaks of the process."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, cast

import openai

from benchmarks._clocks import Clocks
from benchmarks._pace import MARK, Pace
from holdfast.server import Run
from holdfast.server.agents.agent import Agent
from holdfast.server.agents.openai import openai_agent


async def holds(run: Run) -> AsyncGenerator[str]:
    """Watches the event loop for some `seconds`, and tells the longest turn of it, in ms of this thread's CPU time."""
    loop = asyncio.get_running_loop()
    longest, before, over = 0.0, time.thread_time(), False

    def turn() -> None:
        nonlocal longest, before
        now = time.thread_time()
        longest, before = max(longest, now - before), now
        if not over:
            loop.call_soon(turn)

    turn()
    await asyncio.sleep(cast("float", run.metadata["seconds"]))
    over = True
    yield told(longest * 1000)


def told(value: object) -> str:
    """What `Holdfast.hear` understands."""
    mark = MARK.decode()
    return f"{mark}{json.dumps(value).encode().hex()}{mark}"


async def paced(run: Run) -> AsyncGenerator[str]:
    """Streams as the send's metadata says."""
    async for text in Pace.of(cast("dict[str, Any]", run.metadata["pace"])).texts():
        yield text


async def article(run: Run) -> AsyncGenerator[str]:
    """Says a text of `length` in `chunks` pieces, each an event of its own, and then waits to be stopped."""
    length, chunks = cast("int", run.metadata["length"]), cast("int", run.metadata["chunks"])
    piece = ("All work and no play makes Jack a dull boy. " * (length // chunks // 44 + 1))[: length // chunks]
    for _ in range(chunks):
        yield piece
        await run.steers()  # there are none, but what was said before is in the log then
    yield told(None)
    await asyncio.Event().wait()


async def collections(run: Run) -> AsyncGenerator[str]:
    """Makes garbage for a while, forces full collections, and says the longest of each generation, in ms."""
    longest = [0.0, 0.0, 0.0]
    began = 0.0

    def watch(phase: str, details: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            generation = details["generation"]
            longest[generation] = max(longest[generation], time.perf_counter() - began)

    gc.callbacks.append(watch)
    kept: list[list[dict[str, int]]] = []
    for _ in range(200):  # what survives for a while is what makes collections of the older generations due
        kept.append([{"n": n} for n in range(1_000)])
        del kept[:-20]
        await asyncio.sleep(0)
    kept.clear()
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0.05)
    gc.callbacks.remove(watch)
    yield told([seconds * 1000 for seconds in longest])


def telling(clocks: Clocks) -> Callable[[Run], AsyncGenerator[str]]:
    """An agent that tells what the clocks say, and the CPU seconds of this thread and of the process."""

    async def layers(run: Run) -> AsyncGenerator[str]:
        used = [time.thread_time(), time.process_time()]
        yield told({"layers": clocks.told(), "missing": clocks.missing, "cpu": used})

    return layers


def aged(asking: Callable[[Run], Awaitable[None]]) -> Callable[[Run], Awaitable[None]]:
    """An agent that adds so many `events` to the log before it asks the model."""

    async def say_and_ask(run: Run) -> None:
        for _ in range(cast("int", run.metadata["events"])):
            await run.text("token ")
            await run.steers()  # there are none, but what was said before is in the log then
        await run.text(told(None))
        await asking(run)

    return say_and_ask


def agents(model_url: str | None, clocks: Clocks | None) -> dict[str, Agent]:
    """By name; those that need a model server or clocks only where there are any."""
    functions: Mapping[str, Callable[[Run], AsyncGenerator[str] | Awaitable[None]]] = {
        "paced": paced,
        "article": article,
        "collections": collections,
        "holds": holds,
    }
    found = {name: Agent(name, function) for name, function in functions.items()}
    if clocks is not None:
        found["layers"] = Agent("layers", telling(clocks))
    if model_url is not None:
        client = openai.AsyncOpenAI(api_key="k", base_url=model_url, http_client=openai.DefaultAioHttpClient())
        asking = openai_agent(model="m", api="chat", client=client)
        found["openai"] = Agent("openai", asking, takes_steers=True)
        found["aged"] = Agent("aged", aged(asking), takes_steers=True)
    return found
