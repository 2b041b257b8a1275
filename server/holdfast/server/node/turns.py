"""The turns of a node: everything that waits in its sessions is decided, appended and told together.

A turn comes once per turn of the event loop, if there is anything to do: by one `call_soon`, and no task. Its phases
keep like work together: all sessions decide, then all that they add goes to the store in one call, then each session
tells what has landed. One session that fails in a phase fails alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import copy_context

from holdfast.server.session.ports import Turn
from holdfast.server.store import Append, Outcome, Store


class Turns:
    """The turns of one event loop over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._due: dict[Turn, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = copy_context()
        """Turns are the server's, whoever's call has brought one about: what an agent's context says is not theirs."""

    def add(self, member: Turn) -> None:
        """Takes part in the next turn. Harmless where it does already."""
        due = self._due
        if not due:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._turn, context=self._context)
        due[member] = None

    def _turn(self) -> None:
        members, self._due = self._due, {}
        deciding: dict[str, Turn] = {}
        appends: list[Append] = []
        for member in members:
            append = member.decide()
            if append is not None:
                deciding[append.session] = member
                appends.append(append)
        if not appends:
            return

        def landed(requests: Sequence[Append], outcomes: Sequence[Outcome]) -> None:
            for append, outcome in zip(requests, outcomes, strict=True):
                deciding[append.session].landed(append, outcome)

        outcomes = self._store.append_many(appends, landed)
        if outcomes is not None:
            landed(appends, outcomes)
