"""The turns of a node: once per turn of the loop, all together, and one session that fails does so alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from holdfast.server.node.turns import Turns
from holdfast.server.store import NOTHING_OWED, Append, Appended, Batch, Head, Landed, Outcome
from tests.support.cluster import cluster
from tests.support.doubles import settled

WHO: ContextVar[str] = ContextVar("WHO", default="server")


class FakeStore:
    """Answers at once, or later."""

    def __init__(self, *, later: bool) -> None:
        self.later = later
        self.asked: list[list[str]] = []
        self.waiting: list[tuple[Sequence[Append], Landed]] = []

    def append_many(self, requests: Sequence[Append], landed: Landed) -> Sequence[Outcome] | None:
        """As the store's."""
        self.asked.append([request.session for request in requests])
        if self.later:
            self.waiting.append((requests, landed))
            return None
        return [self.outcome(request) for request in requests]

    def outcome(self, request: Append) -> Outcome:
        """An error for the session named `bad`."""
        return RuntimeError("bad") if request.session == "bad" else Appended(Head("e", 1, "b"), contended=False)


class Member:
    """A session that adds to its log where it has something."""

    def __init__(self, name: str, *, adds: bool = True) -> None:
        self.name, self.adds = name, adds
        self.decided: list[str] = []
        self.outcomes: list[Outcome] = []

    def decide(self) -> Append | None:
        """One batch."""
        self.decided.append(WHO.get())
        batch = Batch("b", 1, 1, b"x")
        return Append(self.name, Head("e", 0, ""), batch, "n1", NOTHING_OWED) if self.adds else None

    def landed(self, append: Append, outcome: Outcome) -> None:
        """What became of it."""
        assert append.session == self.name
        self.outcomes.append(outcome)


@pytest.mark.parametrize("later", [False, True])
async def test_all_that_wait_are_appended_together_and_told_each_its_own(*, later: bool) -> None:
    """In one call of the store, whether it answers at once or later; a member is in a turn once."""
    store: Any = FakeStore(later=later)
    turns = Turns(store)
    members = [Member("a"), Member("idle", adds=False), Member("bad"), Member("c")]
    for member in [*members, *members]:
        turns.add(member)
    assert store.asked == []
    await settled(2)
    assert store.asked == [["a", "bad", "c"]]
    if later:
        assert all(member.outcomes == [] for member in members)
        requests, landed = store.waiting[0]
        landed(requests, [store.outcome(request) for request in requests])
    assert [len(member.decided) for member in members] == [1, 1, 1, 1]
    assert [[type(outcome) for outcome in member.outcomes] for member in members] == [
        [Appended],
        [],
        [RuntimeError],
        [Appended],
    ]


async def test_a_turn_without_anything_to_add_asks_nothing() -> None:
    """And the next turn comes when somebody has something again."""
    store: Any = FakeStore(later=False)
    turns = Turns(store)
    member = Member("a", adds=False)
    for count in (1, 2):
        turns.add(member)
        await settled(2)
        assert len(member.decided) == count
    assert store.asked == []


async def test_a_turn_is_the_servers_whoever_has_brought_it_about() -> None:
    """What the caller's context says is not seen by the sessions of the turn."""
    store: Any = FakeStore(later=False)
    turns, member = Turns(store), Member("a")
    token = WHO.set("agent")
    turns.add(member)
    WHO.reset(token)
    await settled(2)
    assert member.decided == ["server"]


async def test_one_session_that_cannot_append_fails_alone() -> None:
    """Of many in one turn; the others' commands are in their logs, and everybody has a reply."""
    async with cluster() as c:
        devices = [await c.device(f"d{number}", session=f"s{number}") for number in range(4)]
        real = c.store.append_many

        def append_many(requests: Sequence[Append], landed: Landed) -> Sequence[Outcome]:
            error = RuntimeError("broken")
            return [error if it.session == "s2" else real([it], landed)[0] for it in requests]

        c.road.inner.append_many = append_many  # type: ignore[method-assign]
        replies = [device.ask("send", id="r1", text="go") for device in devices]
        await settled()
        outcomes = [reply.result().get("outcome", reply.result().get("code")) for reply in replies]
        assert outcomes == ["started", "started", "unavailable", "started"]
        assert devices[2].session.failed
        assert not any(device.session.failed for device in devices if device is not devices[2])
        c.road.inner.append_many = real  # type: ignore[method-assign]
        for number in range(3):
            (await c.puppet.call(number)).end()
        await settled()
