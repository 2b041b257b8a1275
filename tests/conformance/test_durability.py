"""What a store that calls itself durable gives the next process: everything that was acknowledged, and to one alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.server.errors import StoreError
from holdfast.server.store import LiveNode, Store
from tests.conformance.harness import DURABLE, STORES, Clock
from tests.conformance.test_equivalence import Step, ask, look, steps

SECOND = """
import asyncio, sys
from pathlib import Path
from holdfast.server.errors import StoreError
from tests.conformance.harness import STORES, Clock

async def main():
    store = STORES[sys.argv[1]](Path(sys.argv[2]), Clock()).store()
    try:
        await store.start()
    except StoreError:
        print("refused")
    else:
        print("started")
        await store.close()

asyncio.run(main())
"""


def test_who_promises_it(tmp_path: Path) -> None:
    """A store says of itself whether it does; memory does not."""
    assert "memory" not in DURABLE
    assert [name for name, make in STORES.items() if make(tmp_path, Clock()).store().durable] == DURABLE


async def _next(name: str, place: Path, clock: Clock, before: Store | None = None) -> Store:
    if before is not None:
        await before.close()
    store = STORES[name](place, clock).store()
    await store.start()
    return store


@pytest.mark.parametrize("name", DURABLE)
@settings(max_examples=15)
@given(taken=st.lists(st.tuples(st.sampled_from(["a", "b"]), steps), min_size=1, max_size=15), cut=st.integers(0, 15))
def test_the_next_process_has_the_same_answers(name: str, taken: list[tuple[str, Step]], cut: int) -> None:
    """Closed after any step, a store over the same place says what this one said, and goes on from there."""

    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            clock, place = Clock(), Path(directory)
            store = await _next(name, place, clock)
            try:
                for number, (session, step) in enumerate(taken, 1):
                    await ask(store, clock, session, step, number)
                    if number != cut:
                        continue
                    before = await _lasting(store, session)
                    store = await _next(name, place, clock, store)
                    assert await _lasting(store, session) == before
                    assert store.left_in_order
                before = await _lasting(store, taken[0][0])
                store = await _next(name, place, clock, store)
                assert await _lasting(store, taken[0][0]) == before
            finally:
                await store.close()

    asyncio.run(run())


async def _lasting(store: Store, session: str) -> object:
    """All that can be seen of a session but its presence, which goes with the process."""
    return (await look(store, session))[:-1]


@pytest.mark.parametrize("name", DURABLE)
async def test_leases_go_with_the_process(name: str, tmp_path: Path) -> None:
    """No node is live for the next one: that is how it finds what a dead one left."""
    store = await _next(name, tmp_path, Clock())
    await store.renew("n1", 60_000, LiveNode())
    store = await _next(name, tmp_path, Clock(), store)
    assert await store.live() == {}
    await store.close()


@pytest.mark.parametrize("name", DURABLE)
async def test_a_store_of_one_process_refuses_the_second(name: str, tmp_path: Path) -> None:
    """As long as the first has it open; in the same process too."""
    store = await _next(name, tmp_path, Clock())
    assert not store.shared
    with pytest.raises(StoreError):
        await _next(name, tmp_path, Clock())
    arguments = [sys.executable, "-c", SECOND, name, str(tmp_path)]
    for expected in ("refused", "started"):
        other = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, check=True)
        assert other.stdout.strip() == expected
        await store.close()


async def test_a_ping_of_a_store_that_can_be_written(store: Store) -> None:
    """It returns, as often as it is asked for."""
    for _ in range(3):
        await store.ping()
