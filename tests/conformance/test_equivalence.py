"""Whatever is asked of them, in whatever order, the stores answer alike."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.server.store import NOTHING_OWED, Batch, Checkpoint, Head, LiveNode, Owed, Store, StoredMessage
from tests.conformance.harness import STORES, Clock


@dataclass(frozen=True)
class Append:
    """An append of a writer that may be `behind` its log, or believe in another epoch or another last batch."""

    behind: int
    epoch: int
    other: int
    batch: int
    count: int
    node: str
    owed: Owed


@dataclass(frozen=True)
class Compact:
    """A compaction some way below (or above) the head."""

    below: int
    epoch: int
    trim_below: int
    facts: int


@dataclass(frozen=True)
class NewEpoch:
    """A jump, from a head that may be wrong."""

    behind: int
    other: int
    jump: int


@dataclass(frozen=True)
class Pass:
    """Time goes by, and a node's lease and presence change."""

    ms: int
    node: str
    observers: int


_OWED = [
    NOTHING_OWED,
    NOTHING_OWED,
    Owed(frozenset({"n1"})),
    Owed(frozenset({"n1", "n2"}), queued=True),
    Owed(frozenset({"n2"}), due_at=10),
    Owed(queued=True, due_at=20),
]
Step: TypeAlias = Append | Compact | NewEpoch | Pass

_nodes = st.sampled_from(["n1", "n2"])
_stale = st.sampled_from([0, 0, 0, 1])
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        Append,
        behind=_stale,
        epoch=_stale,
        other=_stale,
        batch=st.integers(0, 3),
        count=st.integers(1, 3),
        node=_nodes,
        owed=st.sampled_from(_OWED),
    ),
    st.builds(Compact, below=st.integers(-1, 4), epoch=_stale, trim_below=st.integers(-2, 6), facts=st.integers(0, 9)),
    st.builds(NewEpoch, behind=_stale, other=_stale, jump=st.integers(0, 3)),
    st.builds(Pass, ms=st.integers(0, 150), node=_nodes, observers=st.integers(0, 1)),
)


async def ask(store: Store, clock: Clock, session: str, step: Step, number: int) -> object:
    """Take one step, as a function of what the store itself says of the log, and return the reply."""
    head = (await store.open(session, "e0")).head
    match step:
        case Append():
            expected = Head(
                head.epoch if step.epoch == 0 else "other",
                max(0, head.seq - step.behind),
                head.batch_id if step.other == 0 else "other",
            )
            batch = Batch(f"b{step.batch}", expected.seq + 1, expected.seq + step.count, b"%d" % number)
            return await store.append(session, expected, batch, node=step.node, owed=step.owed)
        case Compact():
            return await store.compact(
                session,
                head.epoch if step.epoch == 0 else "other",
                Checkpoint(max(0, head.seq - step.below), b"state %d" % number),
                messages=[StoredMessage(step.facts, f"m{step.facts}", b"%d" % number)],
                records={f"r{step.facts % 4}": b"%d" % number},
                trim_to=max(0, head.seq - step.trim_below),
            )
        case NewEpoch():
            last_batch = head.batch_id if step.other == 0 else "other"
            believed = Head(head.epoch, max(0, head.seq - step.behind), last_batch)
            return await store.new_epoch(session, believed, f"e{number}", head.seq + step.jump)
        case Pass():
            await clock.pass_ms(step.ms)
            if step.observers or step.ms % 2:
                await store.renew(step.node, 100, LiveNode())
            await store.observe(session, step.node, step.observers, b"%d" % number)
            return await store.live(), await store.present(session)


async def look(store: Store, session: str) -> tuple[object, ...]:
    """Return all that can be seen of a session."""
    now = await store.head(session)
    assert now is not None
    return (
        await store.heads([session, "none", "a"]),
        await store.open(session, "x"),
        await store.read(session, 0),
        await store.read(session, max(0, now.seq - 3), count=2),
        await store.catch_up(session, now._replace(seq=max(0, now.seq - 2))),
        await store.messages(session, 7, 3),
        await store.find(session, [f"r{key}" for key in range(4)]),
        [await store.orphans(live, at) for live in (set[str](), {"n1"}, {"n2", "n1"}) for at in (5, 15)],
        await store.unobserved_since(session),
    )


@settings(max_examples=60)
@given(taken=st.lists(st.tuples(st.sampled_from(["a", "b"]), steps), min_size=1, max_size=25))
def test_all_stores_answer_alike(taken: list[tuple[str, Step]]) -> None:
    """After every step of any sequence, each store shows exactly what the others show."""

    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            clocks = [Clock() for _ in STORES]
            places = [Path(directory, name) for name in STORES]
            stores: list[Store] = []
            for place, make, clock in zip(places, STORES.values(), clocks, strict=True):
                place.mkdir()
                stores.append(make(place, clock).store())
            try:
                for store in stores:
                    await store.start()
                for number, (session, step) in enumerate(taken, 1):
                    seen = [
                        (await ask(store, clock, session, step, number), await look(store, session))
                        for store, clock in zip(stores, clocks, strict=True)
                    ]
                    assert all(one == seen[0] for one in seen), f"{step} is answered {seen}"
            finally:
                for store in stores:
                    await store.close()

    asyncio.run(run())
