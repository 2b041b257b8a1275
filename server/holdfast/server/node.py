"""A node: one server process, its open sessions, its lease, and the sweep that finishes what dead nodes began."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from holdfast.server.agent import Agent
from holdfast.server.clock import Clock, SystemClock, Timer, pause
from holdfast.server.failed_sessions import FAILURES_IN_A_ROW, SHUT_SECONDS, FailedSessions
from holdfast.server.registry import AgentTraits, RunState, Stop, Sweep
from holdfast.server.roles import SessionFailed
from holdfast.server.session import Session
from holdfast.server.settings import SessionSettings
from holdfast.server.store import Head, Store, StoreError, StoreUnavailable
from holdfast.server.worker import RunWorker

LEASE_MS: Final = 10_000
"""How long a node that says nothing counts as alive; its runs are ended or taken over then."""
TICK_SECONDS: Final = 1.0
"""Between two rounds of the node: lease, idle sessions, heads of shared sessions with work."""
SWEEP_TICKS: Final = 5
_STORE_PATIENCE_SECONDS: Final = 5.0
"""How long the end of a process waits for a store that does not answer."""
IDLE_SECONDS: Final = 30.0
"""A session that nobody has used for this long is closed; opening it again costs one read."""
_log = structlog.get_logger("holdfast.node")


class Node:
    """Runs sessions over a store. `start` it, `drain` it before it goes, `stop` it.

    It is the `Host` of its sessions. `node` is new for every process, so that what a dead one left behind can never be
    taken for its own.
    """

    def __init__(
        self,
        store: Store,
        agents: Mapping[str, Agent],
        *,
        clock: Clock | None = None,
        settings: SessionSettings | None = None,
    ) -> None:
        self.node = f"n-{secrets.token_hex(6)}"
        self.store = store
        self.agents = agents
        self.traits: Mapping[str, AgentTraits] = {name: agent.traits for name, agent in agents.items()}
        self.clock = clock or SystemClock()
        self.settings = settings or SessionSettings()
        self.accepting = True
        self.sessions: dict[str, Session] = {}
        self._users: dict[str, int] = {}
        self._closing: dict[str, tuple[Session, asyncio.Task[None]]] = {}
        self._failed = FailedSessions()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tick_timer: Timer | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._ticks = 0
        self._renewed_at = 0.0
        self._unwatch = _nothing

    async def start(self) -> None:
        """Opens the store, takes the lease, and ends or takes over what dead nodes left.

        Where it fails, or is cancelled, the node is stopped: the store is closed again.
        """
        await self.store.start()
        try:
            await self.store.renew(self.node, LEASE_MS)
            self._renewed_at = self.clock.monotonic()
            if not self.store.exclusive:
                self._unwatch = self.store.watch(self.node, self._woken)
            await self.sweep()
        except BaseException:
            await self.stop()
            raise
        self._tick_timer = self.clock.call_later(TICK_SECONDS, self._tick)

    async def stop(self) -> None:
        """Closes all sessions and the store. Agents that still work are stopped without a word in the log."""
        self.accepting = False
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        if self._ticking is not None:
            _, stuck_round = await asyncio.wait({self._ticking}, timeout=_STORE_PATIENCE_SECONDS)
            self._ticking.cancel()
            await asyncio.gather(*stuck_round, return_exceptions=True)
        self._unwatch()
        for session in self.sessions.values():
            for worker in session.workers.values():
                worker.drop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.settings.grace_ms / 1000)
        closing = [(session, asyncio.ensure_future(session.close())) for session in self.sessions.values()]
        closing.extend(self._closing.values())
        if closing:
            _, stuck = await asyncio.wait({task for _, task in closing}, timeout=_STORE_PATIENCE_SECONDS)
            for session, _ in closing:
                session.abort()
            await asyncio.gather(*stuck, return_exceptions=True)
        self.sessions.clear()
        try:
            async with asyncio.timeout(_STORE_PATIENCE_SECONDS):
                await self.store.release(self.node)
        except (StoreUnavailable, TimeoutError) as error:
            _log.warning("lease not released", node=self.node, error=str(error) or "the store does not answer")
        await self.store.close()

    async def drain(self, timeout_ms: int) -> None:
        """Starts no run any more, lets those that work here finish, and ends the rest as cancelled by the shutdown.

        Returns when nothing works here. Queued runs stay in the log, for the next node.
        """
        self.accepting = False
        deadline = self.clock.monotonic() + timeout_ms / 1000
        while self._working and self.clock.monotonic() < deadline:
            await pause(self.clock, min(0.1, max(0.0, deadline - self.clock.monotonic())))
        told: set[tuple[str, str]] = set()
        deadline = self.clock.monotonic() + self.settings.grace_ms / 1000 + _STORE_PATIENCE_SECONDS
        while self._working and self.clock.monotonic() < deadline:
            # Again and again: what was on its way into the log when the drain began starts to work only now.
            for session in self.sessions.values():
                for run_id in session.workers:
                    if (session.id, run_id) not in told:
                        told.add((session.id, run_id))
                        session.chore(Stop(run_id, "shutdown"))
            await pause(self.clock, 0.02)

    @property
    def _working(self) -> bool:
        return any(session.workers or session.pending for session in self.sessions.values())

    # Sessions

    @asynccontextmanager
    async def open(self, session_id: str) -> AsyncGenerator[Session]:
        """The session, held open while the block lasts. It may fail meanwhile: opened again, it is another one.

        Raises SessionFailed where it has failed a moment ago, or too often in a row.
        """
        session = await self._opened(session_id)
        self._users[session_id] = self._users.get(session_id, 0) + 1
        try:
            yield session
        finally:
            self._users[session_id] -= 1
            if not self._users[session_id]:
                del self._users[session_id]

    async def _opened(self, session_id: str) -> Session:
        while True:
            session = self.sessions.get(session_id)
            if session is not None and session.failed:
                self._retire(session)
            elif session is not None:
                return session
            if session_id not in self._closing:
                break
            await asyncio.wait({self._closing[session_id][1]})
        refusal = self._failed.refusal(session_id, self.clock.monotonic())
        if refusal is not None:
            raise SessionFailed(refusal)
        session = self.sessions[session_id] = Session(session_id, self)
        session.start()
        return session

    def _retire(self, session: Session) -> None:
        """Takes a session that has failed, or that nobody needs, out of use: it is closed beside everything else."""
        del self.sessions[session.id]
        if session.failed and self._failed.failed(session.id, self.clock.monotonic()):
            _log.error("session stays shut", session=session.id, failures=FAILURES_IN_A_ROW, seconds=SHUT_SECONDS)
        closing = asyncio.create_task(self._close(session), name=f"close {session.id}")
        self._closing[session.id] = session, closing

    def start_worker(self, session: Session, run: RunState) -> RunWorker:
        """Starts the task that works on a run."""
        worker = RunWorker(session, run, self.agents[run.agent], clock=self.clock, settings=self.settings)
        self._tasks.add(worker.task)
        worker.task.add_done_callback(self._tasks.discard)
        return worker

    # Upkeep

    async def sweep(self) -> None:
        """Looks through the index: ends, takes over or settles what nodes without a lease left.

        Sessions that have failed here are in it as long as something is owed in them: this opens them again.
        """
        for session_id in await self.store.unfinished():
            if session_id in self._closing or self._failed.left_alone(session_id, self.clock.monotonic()):
                continue
            if self.store.exclusive and session_id in self.sessions:
                continue  # it is at work, and there is no other node that could leave something
            (await self._opened(session_id)).chore(Sweep())

    def _tick(self) -> None:
        self._tick_timer = self.clock.call_later(TICK_SECONDS, self._tick)
        # Looked at here and not in the round, which a store that says nothing at all holds up.
        if self.clock.monotonic() - self._renewed_at > LEASE_MS / 1000 and not self.store.exclusive:
            self._stop_agents()
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._round(), name="node round")

    async def _round(self) -> None:
        self._ticks += 1
        self._close_unused()
        try:
            before = self.clock.monotonic()
            await self.store.renew(self.node, LEASE_MS)
            self._renewed_at = before  # the lease may have begun as early as this
            # A store of one process needs it for what has failed here, and not while that process goes away.
            if self._ticks % SWEEP_TICKS == 0 and (self.accepting or not self.store.exclusive):
                await self.sweep()
        except StoreUnavailable as error:
            _log.warning("lease not renewed", node=self.node, error=str(error))
        except StoreError:  # asking again may not help, and is all there is to do
            _log.exception("lease not renewed", node=self.node)
        if not self.store.exclusive:
            for session in self.sessions.values():
                if session.workers or self._ticks % SWEEP_TICKS == 0:
                    session.store_moved()

    def _stop_agents(self) -> None:
        """Without a lease others may end or restart the runs at any time: what is done here may be done twice."""
        for session in self.sessions.values():
            for worker in list(session.workers.values()):
                worker.ended(None)

    def _close_unused(self) -> None:
        now = self.clock.monotonic()
        for session_id, session in list(self.sessions.items()):
            if session_id in self._users or session.busy or session.waiting:
                session.idle_since = None
            elif session.idle_since is None:
                session.idle_since = now
            if session.failed or (session.idle_since is not None and now - session.idle_since > IDLE_SECONDS):
                self._retire(session)

    async def _close(self, session: Session) -> None:
        try:
            await session.close()
        finally:
            del self._closing[session.id]

    def _woken(self, session_id: str, head: Head) -> None:
        session = self.sessions.get(session_id)
        if session is not None:
            session.store_moved()


def _nothing() -> None:
    """There is no watch to end."""
