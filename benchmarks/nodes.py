"""What a second node costs, and how fast it stops a run of the first: nodes of one process over one memory store.

    python -m benchmarks.nodes
    python -m benchmarks.nodes --times 10 --chunks 4000    # a quick look

A run on node A says a chunk whenever the driver lets it; nothing is waited for but what is measured. What it costs when
node B follows, with a reader of its own, is compared with what it costs A alone with one reader. Then runs of several
ages are cancelled through B while they talk: the time goes from the command's arrival at B to the end of the agent at
A. A third node, which has no users, is there all the time: what it was asked and what it opened is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import uvloop

from benchmarks._table import Row, show
from holdfast.protocol import JSON_CODEC, CloseCode, CommandError
from holdfast.protocol.codec import Codec
from holdfast.protocol.commands import parse_command
from holdfast.protocol.control import Ack
from holdfast.server import Run
from holdfast.server.agents.agent import Agent
from holdfast.server.gateway.frames import frame
from holdfast.server.node.node import Node
from holdfast.server.registry import Ask
from holdfast.server.session.actor import Session
from holdfast.server.session.subscriber import Subscriber
from holdfast.server.store import MemoryStore

_AGES: Final = (100, 10_000, 50_000)
_P99_MS: Final = 10.0
_FOLLOWING: Final = 0.8
"""Of what a chunk with one reader costs."""


class Reader:
    """A wire that takes everything at once, and counts it."""

    def __init__(self) -> None:
        self.codec: Codec = JSON_CODEC
        self.closed = False
        self.frames = 0
        self.transmit: Callable[[bytes], object] | None = self.write

    def frame(self, payload: bytes) -> bytes:
        """As a WebSocket connection would build it."""
        return frame(payload, text=True)

    def write(self, frames: bytes) -> None:
        """Takes it."""
        self.frames += 1

    async def drained(self) -> None:
        """It never waits."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Ends it."""
        self.closed, self.transmit = True, None


class Talk:
    """An agent that says one chunk for each step, and when its run was stopped."""

    def __init__(self) -> None:
        self.steps = asyncio.Semaphore(0)
        self.stopped: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def go_on(self, run: Run) -> AsyncIterator[str]:
        """The agent."""
        try:
            while True:
                await self.steps.acquire()
                yield "token "
        finally:
            self.stopped.set_result(time.perf_counter())

    async def say(self, chunks: int) -> None:
        """So many, each in a turn of the loop of its own."""
        for _ in range(chunks):
            self.steps.release()
            for _ in range(4):  # it is said, decided and told
                await asyncio.sleep(0)


class Nodes:
    """Three nodes over one store, a session, and the talk of its runs."""

    def __init__(self) -> None:
        self.talks: dict[str, Talk] = {}
        self.store = MemoryStore(shared=True)
        self.held = AsyncExitStack()
        self._number = 0

    async def start(self) -> None:
        """All of them."""
        agents = {"talk": Agent("talk", self._talk)}
        self.a, self.b, self.idle = (Node(self.store, agents) for _ in range(3))
        for node in (self.a, self.b, self.idle):
            await node.start()

    def _talk(self, run: Run) -> AsyncIterator[str]:
        return self.talks[run.run_id].go_on(run)

    async def session(self, node: Node, name: str) -> Session:
        """A session, with a reader."""
        session = await self.held.enter_async_context(node.open(name))
        reader = Reader()
        subscriber = Subscriber(f"c-{node.node}", "ana", node.node, 0, reader, messages=50)
        await session.join(subscriber, None, {"type": "welcome"})
        return session

    async def run(self, session: Session) -> tuple[str, Talk]:
        """A run that has begun."""
        self._number += 1
        run_id = f"r{self._number}"
        talk = self.talks[run_id] = Talk()
        await ask(session, type="send", id=run_id, text="go")
        await talk.say(1)
        return run_id, talk

    async def stop(self) -> None:
        """Everything."""
        await self.held.aclose()
        for node in (self.a, self.b, self.idle):
            await node.stop()


async def ask(session: Session, **message: Any) -> Mapping[str, Any]:
    """Sends a command; its reply."""
    replied: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

    def reply(outcome: Ack | CommandError) -> None:
        if isinstance(outcome, CommandError):
            replied.set_exception(outcome)
        else:
            replied.set_result({**outcome})

    command: Any = parse_command(message)
    session.submit(Ask("ana", "bench", command), reply)
    return await replied


async def following(nodes: Nodes, chunks: int) -> list[Row]:
    """What B pays for an event of A's, early in the run and late, beside what A pays with a reader of its own."""
    costs: dict[str, list[float]] = {"alone": [], "followed early": [], "followed late": []}
    for number in range(5):
        alone, both = await nodes.session(nodes.a, f"alone-{number}"), await nodes.session(nodes.a, f"both-{number}")
        await nodes.session(nodes.b, f"both-{number}")
        _, talk = await nodes.run(alone)
        costs["alone"].append(await cost(talk, chunks))
        await ask(alone, type="cancel", id=f"k{number}", runId=list(nodes.talks)[-1])
        _, talk = await nodes.run(both)
        costs["followed early"].append(await cost(talk, chunks))
        await talk.say(10_000)
        costs["followed late"].append(await cost(talk, chunks))
        await ask(both, type="cancel", id=f"l{number}", runId=list(nodes.talks)[-1])
    one = statistics.median(costs["alone"])
    early, late = (statistics.median(costs[name]) - one for name in ("followed early", "followed late"))
    return [
        Row("a chunk with one reader", one, "µs"),
        Row("following it at another node", early, "µs", _FOLLOWING, one),
        Row("the same after 10,000 chunks", late, "µs", _FOLLOWING, one),
    ]


async def cost(talk: Talk, chunks: int) -> float:
    """Of a chunk, in µs of CPU."""
    began = time.process_time()
    await talk.say(chunks)
    return (time.process_time() - began) / chunks * 1e6


async def cancels(nodes: Nodes, age: int, times: int) -> list[Row]:
    """How long it takes from a cancel at B to the end of the agent at A, while it talks."""
    waited: list[float] = []
    at_a, at_b = await nodes.session(nodes.a, f"age-{age}"), await nodes.session(nodes.b, f"age-{age}")
    for number in range(times):
        run_id, talk = await nodes.run(at_a)
        await talk.say(age)
        talking = asyncio.create_task(talk.say(1_000_000))
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        cancelled = asyncio.create_task(ask(at_b, type="cancel", id=f"k{number}", runId=run_id))
        stopped = await talk.stopped
        assert (await cancelled)["outcome"] == "cancelled"
        talking.cancel()
        waited.append((stopped - began) * 1000)
    waited.sort()
    return [
        Row(f"{age:,} events, p50", statistics.median(waited), "ms"),
        Row(f"{age:,} events, p99 of {times}", waited[min(len(waited) - 1, round(0.99 * len(waited)))], "ms", _P99_MS),
    ]


async def compare(chunks: int, times: int) -> None:
    """Prints the tables."""
    nodes = Nodes()
    await nodes.start()
    rows = await following(nodes, chunks)
    show("nodes: CPU per chunk, memory store, one process", rows)
    stops: list[Row] = []
    for age in _AGES:
        stops += await cancels(nodes, age, max(3, times * 1_000 // max(age, 1_000)))
    show("nodes: from a cancel at node B to the end of the agent at node A, while it talks", stops)
    show("nodes: one without users", [Row("sessions that it has open", len(nodes.idle.sessions), "", 0)])
    await nodes.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=4_000)
    parser.add_argument("--times", type=int, default=100)
    given = parser.parse_args()
    uvloop.run(compare(given.chunks, given.times))
