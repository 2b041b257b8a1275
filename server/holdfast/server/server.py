"""`Server`: the agents of an application, and what it takes to serve them."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import structlog

from holdfast.protocol.values import is_id
from holdfast.server.agent_tasks import AgentTasks
from holdfast.server.agents.agent import Agent, AgentFunction
from holdfast.server.gateway.auth import AnonymousAuthenticator, Authenticator
from holdfast.server.gateway.endpoint import Gateway
from holdfast.server.node.node import ENDING_SECONDS, STOP_SECONDS, Node
from holdfast.server.settings import DRAIN_MS, GatewaySettings, SessionSettings
from holdfast.server.store import Store, open_store

_log = structlog.get_logger("holdfast.server")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts connections."""

    host: str
    port: int
    """The one it listens at; chosen by the system where 0 was asked for."""
    _node: Node
    _gateway: Gateway

    @property
    def agents(self) -> list[str]:
        """The names of its agents; first that of the one for sends that name none."""
        return list(self._node.agents)

    @property
    def runs(self) -> int:
        """How many runs go on here."""
        return sum(len(session.workers) for session in self._node.sessions.values())

    @property
    def url(self) -> str:
        """For clients: `ws://host:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    async def drain(self, drain_ms: int = DRAIN_MS) -> None:
        """Starts no more runs here; those that go on may finish for `drain_ms`, and the rest end as cancelled.

        Whoever is connected watches them end, and is then sent away to come back later. Cancelled, it leaves the server
        draining.
        """
        await self._node.drain(drain_ms)
        await self._gateway.drain()


@runtime_checkable
class _Closable(Protocol):
    """An agent that holds connections of its own."""

    def aclose(self) -> Coroutine[Any, Any, None]: ...


class Server:
    """Agents, and how connections to them are admitted.

        server = Server()

        @server.agent("assistant")
        async def assistant(run: Run):
            yield "Hello"

    `authenticator`: says who a token is; without one everybody is the principal `local`, and the server binds loopback
    addresses only.
    `settings`: bounds and times of every session; `gateway_settings`: of every connection. Both have defaults.

    The first agent that is registered is the one for sends that name none.
    """

    def __init__(
        self,
        *,
        authenticator: Authenticator | None = None,
        settings: SessionSettings | None = None,
        gateway_settings: GatewaySettings | None = None,
    ) -> None:
        self.authenticator: Authenticator = authenticator or AnonymousAuthenticator()
        self.settings = settings or SessionSettings()
        self.gateway_settings = gateway_settings or GatewaySettings()
        self._agents: dict[str, Agent] = {}

    @property
    def agents(self) -> Mapping[str, AgentFunction]:
        """By name; first the one for sends that name none, and then in the order they were registered."""
        return {name: agent.function for name, agent in self._agents.items()}

    def agent(
        self, name: str, *, restartable: bool = False, takes_steers: bool = False
    ) -> Callable[[AgentFunction], AgentFunction]:
        """Registers the decorated function, see `add_agent`."""

        def register(function: AgentFunction) -> AgentFunction:
            self.add_agent(name, function, restartable=restartable, takes_steers=takes_steers)
            return function

        return register

    def add_agent(
        self, name: str, function: AgentFunction, *, restartable: bool = False, takes_steers: bool = False
    ) -> None:
        """Registers an agent.

        `name`: by which sends ask for it.
        `function`: an async generator of strings, which are its text, or a coroutine function that uses its `Run`.
        `restartable`: another node may call it again for a run whose node has died, with what it had said in
        `run.messages`; runs of all others end as `lost` then.
        `takes_steers`: it takes steers itself, by `run.steers()` and `run.interruptible()`; all others are called again
        for a steer, with the steer in `run.messages`.

        Raises ValueError for a name that is no id or is taken.
        """
        if not is_id(name):
            raise ValueError(f"{name!r} is no name for an agent: letters, digits and . _ : ~ - are")
        if name in self._agents:
            raise ValueError(f"there is an agent {name!r} already")
        self._agents[name] = Agent(name, function, restartable, takes_steers)

    def prefer(self, name: str) -> None:
        """Makes `name` the agent for sends that name none. Raises KeyError for one that is not registered."""
        self._agents = {name: self._agents.pop(name), **self._agents}

    @asynccontextmanager
    async def running(
        self, *, host: str = "127.0.0.1", port: int = 8787, store: Store | str = "sqlite:///holdfast.db"
    ) -> AsyncGenerator[Running]:
        """Serves while the block lasts.

        `host`, `port`: where it listens; port 0 lets the system choose.
        `store`: where the logs lie, started and closed here; or its URL, see `open_store`.

        Leaving the block stops at once, and takes two seconds at most: what does not end in that time is named in the
        log. Runs that are going on end as `lost` when the store is next opened, or go on where their agent is
        restartable, unless the node was drained before. Agents that have an `aclose` are closed then.
        """
        node = Node(open_store(store) if isinstance(store, str) else store, self._agents, settings=self.settings)
        gateway = Gateway(node, authenticator=self.authenticator, settings=self.gateway_settings)
        await node.start()
        time = asyncio.get_running_loop().time
        left = STOP_SECONDS
        try:
            await gateway.start(host, port)
            try:
                yield Running(host, gateway.port, node, gateway)
            finally:
                began = time()
                await gateway.stop(STOP_SECONDS / 2)
                left -= time() - began
        finally:
            try:
                await node.stop(left * 0.75)
            finally:
                await self._close_agents(left * 0.25)

    async def _close_agents(self, seconds: float) -> None:
        """Closes the agents that can be closed, all together. What goes wrong with it is in the log."""
        closing: dict[asyncio.Task[None], AgentTasks] = {}
        for name, agent in self._agents.items():
            function: object = agent.function
            if isinstance(function, _Closable):
                tasks = AgentTasks(functools.partial(_closing_failed, name), agent=name)
                closing[tasks.start(function.aclose(), name=f"close {name}")] = tasks
        if not closing:
            return
        done, late = await asyncio.wait(closing, timeout=seconds / 2)
        for task in late:
            closing[task].close()
        if late:
            await asyncio.wait(late, timeout=seconds / 2)
        for task in done:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error.__cause__, (SystemExit, KeyboardInterrupt)):
                _closing_failed(task.get_name().removeprefix("close "), error)

    async def serve(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8787,
        store: Store | str = "sqlite:///holdfast.db",
        drain_ms: int = DRAIN_MS,
        on_ready: Callable[[Running], None] | None = None,
        on_drain: Callable[[Running], None] | None = None,
    ) -> None:
        """Serves until SIGTERM or SIGINT, then drains: runs may finish for `drain_ms`, the rest end as cancelled.

        `host`, `port`, `store`: as in `running`.
        Whoever is connected watches them end, and is then sent away to come back later. A second signal ends the
        draining. It returns at most `drain_ms` and three seconds after the first signal, whatever agents, readers and
        the store do; what did not end is named in the log. `on_ready` is called when it accepts connections, `on_drain`
        at the first signal; one that comes before it accepts connections ends the start. Must run in the main thread.
        """
        loop = asyncio.get_running_loop()
        signals: asyncio.Queue[None] = asyncio.Queue()
        starting: asyncio.Task[None] | None = asyncio.current_task()

        def signalled() -> None:
            signals.put_nowait(None)
            if starting is not None:
                starting.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled)
        try:
            async with self.running(host=host, port=port, store=store) as running:
                starting = None
                if on_ready is not None:
                    on_ready(running)
                await signals.get()
                if on_drain is not None:
                    on_drain(running)
                draining = asyncio.create_task(running.drain(drain_ms), name="drain")
                impatient = asyncio.create_task(signals.get(), name="second signal")
                seconds = drain_ms / 1000 + ENDING_SECONDS
                await asyncio.wait({draining, impatient}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                for task in (draining, impatient):
                    task.cancel()
                _, failure = (*await asyncio.gather(impatient, draining, return_exceptions=True),)
                if isinstance(failure, Exception):
                    _log.error("draining failed", exc_info=failure)
        except asyncio.CancelledError:
            if starting is None or signals.empty():
                raise
            starting.uncancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def _closing_failed(agent: str, error: BaseException) -> None:
    _log.error("an agent failed to close", agent=agent, exc_info=error)
