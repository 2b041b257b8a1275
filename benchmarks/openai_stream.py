"""What a chunk of a model's answer costs on its way into a run: CPU µs, by several ways of reading the stream.

    python -m benchmarks.openai_stream --streams 40 100 200

All ways use the openai package for the request. `typed` iterates over its model objects, `dictionaries` over plain
ones (`cast_to=object`), `bytes` is Holdfast's agent, tool calls, usage and errors included. These end in a run that
only counts its pieces, so that their ratio is that of reading. The two rows `in a session` are agents of a real
session on a memory store with one subscriber, one session for each stream: worker, log, fold and encoding included.

The model server is another process, pinned to the other core; every stream brings 50 chunks a second, and the CPU
time is all that this process uses meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeAlias, cast

import openai
import uvloop

from holdfast.protocol import JSON_CODEC, CloseCode
from holdfast.protocol.commands import Send
from holdfast.server import AgentFunction, MemoryStore, Run
from holdfast.server.agents.agent import Agent
from holdfast.server.agents.openai import OpenAIAgent, openai_agent
from holdfast.server.agents.prompt import chat_completions
from holdfast.server.node.node import Node
from holdfast.server.registry import Ask
from holdfast.server.session.subscriber import Subscriber
from tests.support.fake_run import FakeRun, user

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


class Listener:
    """A subscriber's wire that takes frames, and tells when a run has ended."""

    def __init__(self) -> None:
        self.codec = JSON_CODEC
        self.closed = False
        self.ended = asyncio.Event()

    @property
    def transmit(self) -> Callable[[bytes], object]:
        """There is always room."""
        return self.write

    def frame(self, payload: bytes) -> bytes:
        """Length-prefixed."""
        return len(payload).to_bytes(4, "big") + payload

    def write(self, frames: bytes) -> None:
        """Looks for the end of a run."""
        if b'"run.ended"' in frames:
            assert b'"completed"' in frames, frames
            self.ended.set()

    async def drained(self) -> None:
        """There is always room."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Nothing is open."""
        self.closed = True


def typed_agent(client: openai.AsyncOpenAI) -> AgentFunction:
    """The agent that one would write with the package's own objects."""

    async def agent(run: Run) -> AsyncGenerator[str]:
        history: Any = chat_completions(run.messages)
        stream = await client.chat.completions.create(model="m", messages=history, stream=True)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    return agent


def own_agent(client: openai.AsyncOpenAI) -> AgentFunction:
    """Holdfast's."""
    return openai_agent(model="m", api="chat", client=client)


async def session_cost(function: AgentFunction, streams: int) -> float:
    """CPU µs of this process per chunk, from the model's bytes to one subscriber's frame."""
    used = 0.0
    node = Node(MemoryStore(), {"assistant": Agent("assistant", function)})
    await node.start()
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(node.open(f"s{number}")) for number in range(streams)]
        listeners = [Listener() for _ in sessions]
        for session, listener in zip(sessions, listeners, strict=True):
            await session.join(Subscriber("c", "ana", "d", 0, listener, messages=50), None, {"type": "welcome"})
        for number in range(2):  # the first round opens connections
            started = time.process_time()
            for session, listener in zip(sessions, listeners, strict=True):
                listener.ended.clear()
                session.submit(Ask("ana", "d", Send(id=f"r{number}", text="hello")), lambda _: None)
            async with asyncio.timeout(10 * SECONDS):
                for listener in listeners:
                    await listener.ended.wait()
            used = time.process_time() - started
    await node.stop()
    return used / (streams * SECONDS * CHUNKS_PER_SECOND) * 1e6


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
    typed: dict[str, float] = {}

    def row(name: str, spent: float) -> None:
        kind = name.partition(",")[0]
        ratio = spent / typed.setdefault(kind, spent)
        load = spent * streams * CHUNKS_PER_SECOND / 1e6
        print(f"  {name:<30} {spent:7.1f} µs/chunk   {ratio:5.2f} x typed   {load:6.1%} of a core", flush=True)

    for name, (client, pipeline) in pipelines(base_url).items():
        async with client:
            row(name, await cost(pipeline, streams))
    async with openai.AsyncOpenAI(api_key="k", base_url=base_url) as client:
        row("in a session, typed", await session_cost(typed_agent(client), streams))
    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(api_key="k", base_url=base_url, http_client=http) as client:
        row("in a session, bytes (Holdfast)", await session_cost(own_agent(client), streams))


def main() -> None:
    """Starts the model server on the other core and prints a table for each number of streams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[40, 100, 200])
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "tests.support.openai_endpoint", "--port", "0"]
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
