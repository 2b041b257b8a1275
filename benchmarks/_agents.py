"""The agents that the benchmarks' server has: one that streams at a pace, and one that speaks of the process."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, cast

import openai

from benchmarks._pace import Pace
from holdfast.server import Agent, Run
from holdfast.server.agents.openai import openai_agent


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
        await asyncio.sleep(0.0004)  # long enough for the actor to have taken it
    yield "@"
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
    yield "@" + " ".join(f"{seconds * 1000:.2f}" for seconds in longest) + "@"


def agents(model_url: str | None) -> dict[str, Agent]:
    """By name; the one that asks a model only where there is a model server."""
    functions: Mapping[str, Callable[[Run], AsyncGenerator[str] | Awaitable[None]]] = {
        "paced": paced,
        "article": article,
        "collections": collections,
    }
    found = {name: Agent(name, function) for name, function in functions.items()}
    if model_url is not None:
        client = openai.AsyncOpenAI(api_key="k", base_url=model_url, http_client=openai.DefaultAioHttpClient())
        asking = openai_agent(model="m", api="chat", client=client)
        found["openai"] = Agent("openai", asking, takes_steers=True)
    return found
