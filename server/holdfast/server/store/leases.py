"""What a store within one process keeps in memory: marks of lost races, leases and presence.

None of it is meant to outlive the process. After a restart no node is live, and that is how the runs of a
process that died are found.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from typing_extensions import override

from holdfast.server.store.base import Store
from holdfast.server.store.values import (
    CONTENTION_MS,
    LiveNode,
    Presence,
)

REMEMBERED_SESSIONS = 100_000
"""For how many unobserved sessions the time of that is kept. The longest forgotten starts its time again."""

_MARKS_BEFORE_SWEEP = 1_024


def wall_clock_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class LocalStore(Store):
    """The part of the interface that is the same for every store within one process. Belongs to one event
    loop.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._marks: dict[str, tuple[str, int]] = {}  # session → (the node that lost last, when that is forgotten)
        # Lapsed leases stay until released: their end is the time since when their observers do not count.
        # One entry per node ever started in this process.
        self._lease_ends: dict[str, int] = {}
        self._said: dict[str, LiveNode] = {}
        self._observers: dict[str, dict[str, Presence]] = {}  # by node and session
        self._unobserved: dict[str, int] = {}  # session → since when, the longest known first

    def _mark(self, session: str, node: str) -> None:
        """Remember that `node` lost a race for the session."""
        now = self._clock()
        if len(self._marks) >= _MARKS_BEFORE_SWEEP:
            self._marks = {name: mark for name, mark in self._marks.items() if mark[1] > now}
        self._marks[session] = (node, now + CONTENTION_MS)

    def _contended(self, session: str, node: str) -> bool:
        """Whether another node than `node` lost a race for the session a short while ago."""
        mark = self._marks.get(session)
        if mark is None:
            return False
        if mark[1] <= self._clock():
            del self._marks[session]
            return False
        return mark[0] != node

    @override
    async def renew(self, node: str, ttl_ms: int, says: LiveNode) -> int:
        now = self._clock()
        self._lease_ends[node] = now + ttl_ms
        self._said[node] = says
        return now

    @override
    async def release(self, node: str) -> None:
        for session in self._observers.get(node, {}).copy():
            await self.observe(session, node, 0)
        self._lease_ends.pop(node, None)
        self._said.pop(node, None)

    @override
    async def live(self) -> dict[str, LiveNode]:
        now = self._clock()
        return {node: self._said[node] for node, end in self._lease_ends.items() if end > now}

    @override
    async def observe(self, session: str, node: str, observers: int, devices: bytes = b"") -> None:
        if observers > 0:
            self._observers.setdefault(node, {})[session] = Presence(observers, devices)
            return
        sessions = self._observers.get(node, {})
        if sessions.pop(session, None):
            if not sessions:
                del self._observers[node]
            end = self._lease_ends.get(node)
            if end is not None:
                # Observers whose node's lease had run out went with the lease, not now.
                self._note_unobserved(session, min(self._clock(), end))

    @override
    async def present(self, session: str) -> dict[str, Presence]:
        now = self._clock()
        return {
            node: sessions[session]
            for node, sessions in self._observers.items()
            if session in sessions and self._lease_ends.get(node, 0) > now
        }

    @override
    async def unobserved_since(self, session: str) -> int | None:
        now = self._clock()
        known = self._unobserved.get(session)
        times = [] if known is None else [known]
        for node, sessions in self._observers.items():
            end = self._lease_ends.get(node)
            if session in sessions and end is not None:
                if end > now:
                    return None
                times.append(end)
        since = max(times, default=now)
        if known is None:
            self._note_unobserved(session, since)
        return since

    def _note_unobserved(self, session: str, since: int) -> None:
        """Remember `since`, unless a later time is known, as that since when nobody observes the session."""
        self._unobserved[session] = max(since, self._unobserved.pop(session, since))
        if len(self._unobserved) > REMEMBERED_SESSIONS:
            del self._unobserved[next(iter(self._unobserved))]
