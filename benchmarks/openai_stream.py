"""What a chunk of a model's answer costs on its way into a run: CPU µs, by four ways of reading the stream.

    python -m benchmarks.openai_stream --streams 40 100 200

All ways use the openai package for the request. `typed` iterates over its model objects, `dictionaries` over
plain ones (`cast_to=object`), `bytes` is Holdfast's agent, tool calls, usage and errors included. The run at the end
of each is the same, one that counts its pieces, so that the ratio is that of reading. The model server is another
process, pinned to the other core; every stream brings 50 chunks a second, and the CPU time is all that this process
uses meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

import openai
import uvloop

from holdfast.server.agents.openai import OpenAIAgent, openai_agent
from tests.server.agents.fake_run import FakeRun, user

CHUNKS_PER_SECOND = 50
SECONDS = 6
HISTORY: Any = [{"role": "user", "content": "hello"}]

Pipeline: TypeAlias = Callable[[FakeRun], Awaitable[None]]


class Sink(FakeRun):
    """A run that counts what it is given and keeps nothing."""

    async def text(self, delta: str) -> None:
        """More text."""
        self.writes += 1


def pipelines(base_url: str) -> dict[str, tuple[openai.AsyncOpenAI, Pipeline]]:
    """The ways to be compared, each with the client to close at its end."""

    def plain() -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key="k", base_url=base_url)

    def aiohttp() -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key="k", base_url=base_url, http_client=openai.DefaultAioHttpClient())

    def typed(client: openai.AsyncOpenAI) -> Pipeline:
        async def read(run: FakeRun) -> None:
            stream = await client.chat.completions.create(model="m", messages=HISTORY, stream=True)
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    await run.text(chunk.choices[0].delta.content)

        return read

    def dictionaries(client: openai.AsyncOpenAI) -> Pipeline:
        async def read(run: FakeRun) -> None:
            stream = await client.post(
                "/chat/completions",
                body={"model": "m", "messages": HISTORY, "stream": True},
                cast_to=object,
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            async for chunk in stream:
                choices = cast("dict[str, Any]", chunk)["choices"]
                if choices and (text := choices[0]["delta"].get("content")):
                    await run.text(text)

        return read

    def typed_responses(client: openai.AsyncOpenAI) -> Pipeline:
        async def read(run: FakeRun) -> None:
            stream = await client.responses.create(model="m", input=HISTORY, stream=True)
            async for event in stream:
                if event.type == "response.output_text.delta":
                    await run.text(event.delta)

        return read

    def own_chat(client: openai.AsyncOpenAI) -> Pipeline:
        return by(openai_agent(model="m", api="chat", client=client))

    def own_responses(client: openai.AsyncOpenAI) -> Pipeline:
        return by(openai_agent(model="m", api="responses", client=client))

    def by(agent: OpenAIAgent) -> Pipeline:
        async def read(run: FakeRun) -> None:
            await agent(cast("Any", run))

        return read

    makers: list[tuple[str, openai.AsyncOpenAI, Callable[[openai.AsyncOpenAI], Pipeline]]] = [
        ("chat, typed", plain(), typed),
        ("chat, typed, aiohttp", aiohttp(), typed),
        ("chat, dictionaries, aiohttp", aiohttp(), dictionaries),
        ("chat, bytes (Holdfast)", aiohttp(), own_chat),
        ("responses, typed", plain(), typed_responses),
        ("responses, bytes (Holdfast)", aiohttp(), own_responses),
    ]
    return {name: (client, make(client)) for name, client, make in makers}


async def cost(pipeline: Pipeline, streams: int) -> float:
    """CPU µs of this process per chunk, with so many streams at once; the first request is not counted."""
    await pipeline(Sink([user("warm up")]))
    runs = [Sink([user("hello")]) for _ in range(streams)]
    started = time.process_time()
    await asyncio.gather(*(pipeline(run) for run in runs))
    used = time.process_time() - started
    return used / (streams * SECONDS * CHUNKS_PER_SECOND) * 1e6


async def compare(base_url: str, streams: int) -> None:
    """Prints one table."""
    print(f"\n{streams} streams x {CHUNKS_PER_SECOND} chunks/s, {SECONDS} s each")
    typed = {"chat": 0.0, "responses": 0.0}
    for name, (client, pipeline) in pipelines(base_url).items():
        async with client:
            spent = await cost(pipeline, streams)
        api = name.partition(",")[0]
        typed[api] = typed[api] or spent
        load = spent * streams * CHUNKS_PER_SECOND / 1e6
        print(f"  {name:<30} {spent:7.1f} µs/chunk   {spent / typed[api]:5.2f} x typed   {load:6.1%} of a core")


def main() -> None:
    """Starts the model server on the other core and prints a table for each number of streams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[40, 100, 200])
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "tests.openai_endpoint", "--port", "0"]
    command += ["--pace", str(1 / CHUNKS_PER_SECOND), "--chunks", str(SECONDS * CHUNKS_PER_SECOND)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        os.sched_setaffinity(server.pid, {cores[-1]})
        os.sched_setaffinity(0, {cores[0]})
        assert server.stdout is not None
        base_url = server.stdout.readline().strip().partition("=")[2]
        try:
            for streams in arguments.streams:
                uvloop.run(compare(base_url, streams))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
