"""A server without a network: nodes over a store that can be made to fail, on a clock turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from holdfast.server.agents.agent import Agent
from holdfast.server.node.node import Node
from holdfast.server.session.actor import Session
from holdfast.server.settings import SessionSettings
from tests.support.doubles import Device, FakeClock, Puppet, settled
from tests.support.faulty_store import FaultyStore, SharedStore


class Cluster:
    """One store, and the nodes that were started over it."""

    def __init__(self, *, shared: bool = False, settings: SessionSettings | None = None) -> None:
        self.clock = FakeClock()
        self.store = SharedStore(self.clock.now, shared=shared)
        self.settings = settings or SessionSettings()
        self.puppet = Puppet()
        self.agents: Mapping[str, Agent] = {"puppet": Agent("puppet", self.puppet)}
        self.nodes: list[Node] = []
        self.roads: list[FaultyStore] = []
        """Each node's way to the store."""
        self.devices: list[Device] = []
        self._held = AsyncExitStack()

    async def start(self, agents: Mapping[str, Agent] | None = None) -> Node:
        """One more node."""
        road = FaultyStore(self.store)
        node = Node(road, agents or self.agents, clock=self.clock, settings=self.settings)
        await node.start()
        self.nodes.append(node)
        self.roads.append(road)
        return node

    @property
    def road(self) -> FaultyStore:
        """The way of the first node."""
        return self.roads[0]

    async def session(self, number: int = 0, name: str = "s") -> Session:
        """A session on a node, held open."""
        return await self._held.enter_async_context(self.nodes[number].open(name))

    async def device(self, name: str = "d1", number: int = 0, session: str = "s") -> Device:
        """A device that has joined."""
        device = Device(await self.session(number, session), device=name)
        self.devices.append(device)
        return await device.join()

    async def release(self) -> None:
        """Nobody holds a session any more."""
        await self._held.aclose()

    async def kill(self, number: int = 0) -> None:
        """The process dies: its agents stop without a word, its lease runs out, nothing of it reaches the store."""
        node, road = self.nodes[number], self.roads[number]
        road.resume()
        for session in node.sessions.values():
            for worker in session.workers.values():
                worker.drop()
        await settled()
        await self.release()
        await node.stop()
        await self.store.release(node.node)

    def events(self, name: str = "s") -> list[Mapping[str, Any]]:
        """The log."""
        return [dict(event) for event in self.store.events(name)]

    def of(self, run_id: str, kind: str | None = None) -> list[Mapping[str, Any]]:
        """The log's events of a run."""
        return [event for event in self.events() if event["runId"] == run_id and kind in (None, event["type"])]

    def kinds(self, run_id: str) -> list[str]:
        """The types of a run's events, chunks in a row as one."""
        kinds = [event["type"] for event in self.of(run_id)]
        return [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] != kind]

    def text(self, run_id: str) -> str:
        """All text of a run in the log."""
        return "".join(event["delta"] for event in self.of(run_id, "run.chunk") if event["kind"] == "text")


@asynccontextmanager
async def cluster(**options: Any) -> AsyncGenerator[Cluster]:
    """A cluster of one node. When the block ends, nothing may be left running."""
    made = Cluster(**options)
    before = asyncio.all_tasks()
    await made.start()
    try:
        yield made
    except BaseException:  # what has failed is told, and not held up by what it leaves
        for road in made.roads:
            road.resume()
        for node in made.nodes:
            await node.stop(0.2)
        raise
    for road in made.roads:
        road.resume()
        road.down = False
        road.broken.clear()
        road.faults.clear()
    await made.clock.pass_ms(1_000)  # what was refused by the store is tried again
    for device in made.devices:
        device.check()
    await made.release()
    for node in made.nodes:
        await node.stop()
    await settled()
    left = [task.get_name() for task in asyncio.all_tasks() - before]
    assert not left, f"tasks are left behind: {left}"
    assert not made.clock.waiting, f"timers are left behind: {made.clock.left}"
