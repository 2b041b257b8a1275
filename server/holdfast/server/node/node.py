"""A node: one server process, its open sessions, its lease, and the sweep that finishes what dead nodes began."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Set
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog

from holdfast.server.agent_tasks import contain
from holdfast.server.agents.agent import Agent
from holdfast.server.clock import Clock, SystemClock, Timer, pause
from holdfast.server.errors import SessionFailedError, StoreError
from holdfast.server.node.failed_sessions import FAILURES_IN_A_ROW, SHUT_SECONDS, FailedSessions
from holdfast.server.node.turns import Turns
from holdfast.server.registry import AgentTraits, RunState, Stop, Sweep
from holdfast.server.session.actor import Session
from holdfast.server.session.ports import SessionPort, Worker
from holdfast.server.session.slices import Slices
from holdfast.server.session.worker import RunWorker
from holdfast.server.settings import SessionSettings
from holdfast.server.store import Batch, Head, LiveNode, Store

LEASE_MS: Final = 10_000
"""How long a node that says nothing counts as alive; its runs are ended or taken over then."""
LATE_MS: Final = 5_000
"""Behind its time what is due, and was not done, is done by others: whoever should have has hung or gone."""
TICK_SECONDS: Final = 1.0
"""Between two rounds of the node: lease, idle sessions, heads of shared sessions with work."""
SWEEP_TICKS: Final = 5
ENDING_SECONDS: Final = 1.0
"""How long a drain waits for the runs that it has ended itself."""
STOP_SECONDS: Final = 2.0
"""How long a stop may take, whatever agents, readers and the store do."""
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
        self.slices = Slices()
        self.accepting = True
        self.sessions: dict[str, Session] = {}
        self._users: dict[str, int] = {}
        self._closing: dict[str, tuple[Session, asyncio.Task[None]]] = {}
        self._failed = FailedSessions()
        self.turns = Turns(store)
        self.agents_given_up = 0
        """How many runs had an agent that ignored its cancellation for all of its grace, since the process began."""
        self._workers: set[RunWorker] = set()
        """All of whose agent something is left, those included that nobody waits for any more."""
        self._contain_no_more = _nothing
        self._tick_timer: Timer | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._ticks = 0
        self._since = self.clock.now()
        self._renewed_at = 0.0
        self._unlisten = _nothing

    async def start(self) -> None:
        """Opens the store, takes the lease, and ends or takes over what dead nodes left.

        Where it fails, or is cancelled, the node is stopped: the store is closed again.
        """
        self._unlisten = self.store.listen(self.node, self)
        await self.store.start()
        self._contain_no_more = contain(asyncio.get_running_loop())
        try:
            await self.store.renew(self.node, LEASE_MS, self._says())
            self._renewed_at = self.clock.monotonic()
            await self.sweep()
        except BaseException:
            await self.stop()
            raise
        self._tick_timer = self.clock.call_later(TICK_SECONDS, self._tick)

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Closes all sessions and the store, within `seconds` of real time, whatever agents and the store do.

        Agents that still work are stopped without a word in the log. Agents, sessions, lease and store may each take
        half of the time that is left; what does not end in it is named in the log, and left behind.
        """
        time = asyncio.get_running_loop().time
        deadline = time() + seconds

        def half() -> float:
            return max(0.0, deadline - time()) / 2

        self.accepting = False
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for worker in self._workers:
            worker.drop()
        if self._ticking is not None:
            await _ended({self._ticking}, half())
        self._unlisten()
        await self._stop_workers(half)
        await self._close_sessions(half)
        releasing = asyncio.create_task(self.store.release(self.node), name="lease")
        if await _ended({releasing}, half()):
            _log.warning("lease not released", node=self.node, error="the store does not answer")
        elif (error := releasing.exception()) is not None:
            _log.warning("lease not released", node=self.node, error=str(error))
        closing = asyncio.create_task(self.store.close(), name="store")
        late = await _ended({closing}, max(0.0, deadline - time()))
        self._contain_no_more()
        self._contain_no_more = _nothing
        if late:
            _log.warning("store not closed in time", node=self.node)
        else:
            closing.result()  # raises what closing it did

    async def _stop_workers(self, half: Callable[[], float]) -> None:
        stuck = await _ended({worker.task for worker in self._workers}, half(), cancel=False)
        for worker in [worker for worker in self._workers if worker.task in stuck]:
            worker.abandon()
        # Closed, it ends at its task's next step: what does not waits for something that is not its own.
        if await _ended(stuck, half()):
            runs = [f"{worker.session_id}/{worker.owner.run_id}" for worker in self._workers]
            _log.warning("agents not stopped in time", node=self.node, runs=runs)

    async def _close_sessions(self, half: Callable[[], float]) -> None:
        closing = [(session, asyncio.ensure_future(session.close())) for session in self.sessions.values()]
        closing.extend(self._closing.values())
        stuck = await _ended({task for _, task in closing}, half(), cancel=False)
        left = [session for session, task in closing if task in stuck]
        if left:
            _log.warning("sessions not closed in time", node=self.node, sessions=[session.id for session in left])
            for session in left:
                session.abort()
            await _ended(stuck, half())
        self.sessions.clear()

    async def drain(self, timeout_ms: int) -> None:
        """Starts no run any more, lets those that work here finish, and ends the rest as cancelled by the shutdown.

        Runs that wait for a person or a client are not waited for, and those whose agent is restartable are not ended:
        the next process goes on with them. Returns when nothing else works here, at most a second after `timeout_ms`.
        Queued runs stay in the log.
        """
        self.accepting = False
        deadline = self.clock.monotonic() + timeout_ms / 1000
        while self._working(lambda worker: not worker.waits) and self.clock.monotonic() < deadline:
            await pause(self.clock, min(0.1, max(0.0, deadline - self.clock.monotonic())))
        told: set[tuple[str, str]] = set()
        deadline = self.clock.monotonic() + ENDING_SECONDS
        while self._working(lambda worker: not worker.resumable) and self.clock.monotonic() < deadline:
            # Again and again: what was on its way into the log when the drain began starts to work only now.
            for session in self.sessions.values():
                for run_id, worker in session.workers.items():
                    if (session.id, run_id) not in told and not worker.resumable:
                        told.add((session.id, run_id))
                        session.chore(Stop(run_id, "shutdown"))
            await pause(self.clock, 0.02)

    def _working(self, counts: Callable[[Worker], bool]) -> bool:
        return any(session.pending or any(map(counts, session.workers.values())) for session in self.sessions.values())

    # Sessions

    @asynccontextmanager
    async def open(self, session_id: str) -> AsyncGenerator[Session]:
        """The session, held open while the block lasts. It may fail meanwhile: opened again, it is another one.

        Raises SessionFailedError where it has failed a moment ago, or too often in a row.
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
            raise SessionFailedError(refusal)
        session = self.sessions[session_id] = Session(session_id, self)
        session.start()
        return session

    def _retire(self, session: Session) -> None:
        """Takes a session that has failed, or that nobody needs, out of use: it is closed beside everything else."""
        del self.sessions[session.id]
        now = self.clock.monotonic()
        shut = session.failed and self._failed.failed(session.id, now, for_good=session.unreadable)
        if shut and not session.unreadable:
            _log.error("session stays shut", session=session.id, failures=FAILURES_IN_A_ROW, seconds=SHUT_SECONDS)
        closing = asyncio.create_task(self._close(session), name=f"close {session.id}")
        self._closing[session.id] = session, closing

    def start_worker(self, session: SessionPort, run: RunState) -> RunWorker:
        """Starts the task that works on a run."""
        earlier = [
            worker.task
            for worker in self._workers
            if (worker.session_id, worker.owner.run_id) == (session.id, run.run_id)
        ]
        worker = RunWorker(
            session,
            run,
            self.agents[run.agent],
            clock=self.clock,
            settings=self.settings,
            after=earlier,
            ignored=self._agent_ignored_its_stop,
        )
        self._workers.add(worker)
        worker.task.add_done_callback(lambda _: self._workers.discard(worker))
        return worker

    def _agent_ignored_its_stop(self) -> None:
        self.agents_given_up += 1

    # Upkeep

    async def sweep(self) -> None:
        """Looks through the index: ends, takes over or settles what nodes without a lease left.

        What somebody alive sees to is not even opened. What this node owes in a session that has failed here is seen to
        by nobody: it is opened again.
        """
        live = (await self.store.live()).keys()
        now = self.clock.now() - LATE_MS
        for session_id, owed in (await self.store.orphans(live - {self.node}, now)).items():
            session = self.sessions.get(session_id)
            if session is not None and not session.failed:
                if not owed.is_orphan(live, now):
                    continue  # it is at work
            elif session_id in self._closing or self._failed.left_alone(session_id, self.clock.monotonic()):
                continue
            with suppress(SessionFailedError):  # since the index was read; a later sweep looks again
                (await self._opened(session_id)).chore(Sweep())

    def _tick(self) -> None:
        self._tick_timer = self.clock.call_later(TICK_SECONDS, self._tick)
        # Looked at here and not in the round, which a store that says nothing at all holds up.
        if self.clock.monotonic() - self._renewed_at > LEASE_MS / 1000 and self.store.shared:
            self._stop_agents()
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._round(), name="node round")

    async def _round(self) -> None:
        self._ticks += 1
        self._close_unused()
        try:
            before = self.clock.monotonic()
            await self.store.renew(self.node, LEASE_MS, self._says())
            self._renewed_at = before  # the lease may have begun as early as this
        except StoreError as error:  # of any kind: the next round asks again
            _log.warning("lease not renewed", node=self.node, error=str(error))
        # A store of one process needs it for what has failed here, and not while that process goes away.
        if self._ticks % SWEEP_TICKS == 0 and (self.accepting or self.store.shared):
            try:
                await self.sweep()
            except StoreError as error:
                _log.warning("index not read", node=self.node, error=str(error))
        if self.store.shared:
            await self._look()

    def _says(self) -> LiveNode:
        return LiveNode(frozenset(self.agents), self.accepting, self._since)

    async def _look(self) -> None:
        """Looks where the logs stand: wake-ups may be lost, and the store may have forgotten whom it is to wake."""
        everything = self._ticks % SWEEP_TICKS == 0
        sessions = [session for session in self.sessions.values() if session.workers or everything]
        if not sessions:
            return
        try:
            heads = await self.store.heads([session.id for session in sessions], watcher=self.node)
        except StoreError as error:
            _log.warning("heads not read", node=self.node, error=str(error))
            return
        for session, head in zip(sessions, heads, strict=True):
            if head != session.head:
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
            await self.store.unwatch(session.id, self.node)
        except StoreError as error:  # it is woken for nothing, until its lease is gone
            _log.warning("session still watched", session=session.id, node=self.node, error=str(error))
        finally:
            del self._closing[session.id]

    def heard(self, session: str, before: Head, head: Head, batch: Batch | None) -> None:
        """See `Listener`."""
        opened = self.sessions.get(session)
        if opened is not None:
            opened.heard(before, head, batch)

    def gap(self) -> None:
        """See `Listener`."""
        for session in self.sessions.values():
            session.store_moved()


def _nothing() -> None:
    """There is no watch to end."""


async def _ended(tasks: Set[asyncio.Task[Any]], seconds: float, *, cancel: bool = True) -> set[asyncio.Task[Any]]:
    """Waits for tasks; those that have not ended in time, which are cancelled."""
    if not tasks:
        return set()
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late if cancel else ():
        task.cancel()
    return late
