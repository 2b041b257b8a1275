"""Appends of several sessions in one call: what becomes of each is its own affair."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from holdfast.server.store import (
    NO_LOG,
    Append,
    Appended,
    Batch,
    Conflict,
    Head,
    Outcome,
    Store,
)
from tests.conformance.harness import OWED, START

PATIENCE_SECONDS = 10


def _request(session: str, expected: Head = START, batch_id: str = "b", count: int = 1) -> Append:
    batch = Batch(batch_id, expected.seq + 1, expected.seq + count, session.encode())
    return Append(session, expected, batch, "n1", OWED)


class _Landing:
    """Waits for what was asked for together, whichever way the store answers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[Append], Sequence[Outcome]]] = []
        self._landed = asyncio.Event()

    def __call__(self, requests: Sequence[Append], outcomes: Sequence[Outcome]) -> None:
        self.calls.append((requests, outcomes))
        self._landed.set()

    async def outcomes(self, store: Store, requests: Sequence[Append]) -> Sequence[Outcome]:
        at_once = store.append_many(requests, self)
        assert not self.calls, "it is never called before the call has returned"
        if at_once is None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._landed.wait()
        await store.head("s")  # whatever is asked for after it: nothing is told twice
        if at_once is not None:
            assert not self.calls, "the outcomes were returned"
            return at_once
        ((told, outcomes),) = self.calls
        assert told is requests
        return outcomes


async def _logs(store: Store, *sessions: str) -> None:
    for session in sessions:
        await store.open(session, "e1")


async def test_appends_to_several_sessions(store: Store) -> None:
    """Each moves its own log, and the outcomes come in the order of the requests."""
    sessions = [f"s{number}" for number in range(20)]
    await _logs(store, *sessions)
    requests = [_request(session, count=number + 1) for number, session in enumerate(sessions)]
    outcomes = await _Landing().outcomes(store, requests)
    heads = [Head("e1", number + 1, "b") for number in range(20)]
    assert list(outcomes) == [Appended(head, contended=False) for head in heads]
    assert [await store.head(session) for session in sessions] == heads
    assert [(await store.read(session, 0)).batches[0].payload for session in sessions] == [
        session.encode() for session in sessions
    ]


async def test_one_that_fails_costs_the_others_nothing(store: Store) -> None:
    """A lost race, a log that is not there and a mistake of the caller are outcomes like any other."""
    await _logs(store, "a", "lost", "wrong", "b")
    taken = Batch("other", 1, 1, b"")
    await store.append("lost", START, taken, node="n2", owed=OWED)
    gap = Append("wrong", START, Batch("b", 2, 2, b""), "n1", OWED)
    requests = [_request("a"), _request("lost"), _request("none"), gap, _request("b")]
    outcomes = await _Landing().outcomes(store, requests)
    added = Appended(Head("e1", 1, "b"), contended=False)
    assert [outcomes[0], outcomes[4]] == [added, added]
    assert outcomes[1] == Conflict(Head("e1", 1, "other"), (taken,))
    assert outcomes[2] == Conflict(NO_LOG)
    assert isinstance(outcomes[3], ValueError)
    assert await store.head("wrong") == START


async def test_what_was_asked_for_in_a_row_is_done_in_a_row(store: Store) -> None:
    """A call sees what the one before it did, though nobody waited in between."""
    await _logs(store, "s")
    first, second = _Landing(), _Landing()
    outcomes = await asyncio.gather(
        first.outcomes(store, [_request("s")]), second.outcomes(store, [_request("s", Head("e1", 1, "b"), "c")])
    )
    heads = [Head("e1", 1, "b"), Head("e1", 2, "c")]
    assert [list(each) for each in outcomes] == [[Appended(head, contended=False)] for head in heads]


async def test_nothing_asked_for_is_nothing_done(store: Store) -> None:
    """No request, no outcome."""
    assert list(await _Landing().outcomes(store, [])) == []


async def test_closing_waits_for_what_was_asked_for(store: Store) -> None:
    """Whoever closes a store has been told before of all that was on its way."""
    await _logs(store, "s")
    landing = _Landing()
    at_once = store.append_many([_request("s")], landing)
    await store.close()
    outcomes = at_once or landing.calls[0][1]
    assert list(outcomes) == [Appended(Head("e1", 1, "b"), contended=False)]
