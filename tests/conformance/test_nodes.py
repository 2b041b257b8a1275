"""What nodes know of each other through the store: the index, wake-ups, leases and presence."""

from __future__ import annotations

import asyncio

from holdfast.server.store import NOTHING_OWED, Appended, Batch, Checkpoint, LiveNode, Owed, Presence, Store
from tests.conformance.harness import START, Clock, Writer


async def test_the_index_follows_the_appends(store: Store) -> None:
    """A session is entered with an append that leaves a run open, and taken out with one that does not."""
    writers = {name: Writer(store, name) for name in ("a", "b", "c")}
    for writer in writers.values():
        await store.open(writer.session, "e1")
    assert sorted(await store.orphans(frozenset(), 0)) == []
    await writers["a"].append("a1")
    await writers["b"].append("b1")
    await writers["c"].append("c1", owed=NOTHING_OWED)
    assert sorted(await store.orphans(frozenset(), 0)) == ["a", "b"]
    await writers["a"].append("a2")
    await writers["b"].append("b2", owed=NOTHING_OWED)
    await writers["c"].append("c2")
    assert sorted(await store.orphans(frozenset(), 0)) == ["a", "c"]


async def test_neither_conflict_nor_new_epoch_nor_compaction_takes_out_of_the_index(writer: Writer) -> None:
    """Only an accepted append says that nothing is open."""
    head = (await writer.append("b1")).head
    await writer.store.append("s", START, Batch("x", 1, 1, b""), node="n2", owed=NOTHING_OWED)
    await writer.store.compact("s", "e1", Checkpoint(1, b""), messages=[], records={}, trim_to=1)
    await writer.store.new_epoch("s", head, "e2", 1)
    assert sorted(await writer.store.orphans(frozenset(), 0)) == ["s"]


async def test_orphans_are_what_nobody_who_lives_sees_to(store: Store) -> None:
    """A dead owner, a queue that anybody may take on, a time that has passed; and nothing that its owner sees to."""
    owed = {
        "alive": Owed(frozenset({"n1"})),
        "dead": Owed(frozenset({"n9"})),
        "half": Owed(frozenset({"n1", "n9"})),
        "queue": Owed(queued=True),
        "due": Owed(frozenset({"n1"}), due_at=1_000),
        "over": NOTHING_OWED,
    }
    for session, entry in owed.items():
        await store.open(session, "e1")
        await Writer(store, session).append("b1", owed=entry)
    assert sorted(await store.orphans({"n1", "n2"}, 999)) == ["dead", "half", "queue"]
    assert sorted(await store.orphans({"n1", "n9"}, 1_000)) == ["due", "queue"]
    owed.pop("over")
    assert await store.orphans(frozenset(), 0) == owed


async def test_the_index_has_what_the_last_batch_says(store: Store) -> None:
    """A node's late leaving never takes out what another entered behind it, however they come upon each other."""
    await store.open("s", "e1")

    accepted: dict[int, Owed] = {}

    async def write(node: str, owed: Owed) -> None:
        known = START
        for number in range(50):
            batch = Batch(f"{node}-{number}", known.seq + 1, known.seq + 1, b"")
            result = await store.append("s", known, batch, node=node, owed=owed)
            known = result.head
            if isinstance(result, Appended):
                accepted[known.seq] = owed
            await asyncio.sleep(0)

    for nodes in (("n1", "n2"), ("n2", "n1"), ("n1", "n2")):
        owing = Owed(frozenset({nodes[0]}))
        await asyncio.gather(write(nodes[0], owing), write(nodes[1], NOTHING_OWED))
        last = accepted[max(accepted)]
        assert sorted(await store.orphans(frozenset(), 0)) == ([] if last == NOTHING_OWED else ["s"])
        assert sorted(await store.orphans({nodes[0]}, 0)) == []


async def test_a_lease_lasts_as_long_as_it_is_renewed(store: Store, clock: Clock) -> None:
    """A node is live from its first renewal until its time to live has passed since the last."""
    assert await store.live() == {}
    await store.renew("n1", 1_000, LiveNode())
    await store.renew("n2", 3_000, LiveNode())
    await clock.pass_ms(500)
    assert (await store.live()).keys() == {"n1", "n2"}
    await clock.pass_ms(1_000)
    assert (await store.live()).keys() == {"n2"}
    await store.renew("n1", 1_000, LiveNode())
    assert (await store.live()).keys() == {"n1", "n2"}


async def test_a_released_lease_is_gone_at_once(store: Store) -> None:
    """A node that leaves is not live any more; releasing twice, or what was never held, is harmless."""
    await store.renew("n1", 1_000, LiveNode())
    await store.release("n1")
    await store.release("n1")
    await store.release("n2")
    assert await store.live() == {}


async def test_a_session_never_observed_counts_from_the_first_question(store: Store, clock: Clock) -> None:
    """The time starts when someone first asks, and stays."""
    asked = clock.now
    assert clock.is_at(await store.unobserved_since("s"), asked)
    await clock.pass_ms(500)
    assert clock.is_at(await store.unobserved_since("s"), asked)
    assert clock.is_at(await store.unobserved_since("other"), clock.now)


async def test_a_session_is_observed_while_any_node_observes_it(store: Store, clock: Clock) -> None:
    """The time starts when the last observer of the last node has gone."""
    for node in ("n1", "n2"):
        await store.renew(node, 60_000, LiveNode())
    await store.observe("s", "n1", 2)
    await store.observe("s", "n2", 1)
    assert await store.unobserved_since("s") is None
    await clock.pass_ms(500)
    await store.observe("s", "n1", 1)
    await store.observe("s", "n2", 0)
    assert await store.unobserved_since("s") is None
    await clock.pass_ms(500)
    await store.observe("s", "n1", 0)
    left = clock.now
    await clock.pass_ms(500)
    await store.observe("s", "n1", 0)
    assert clock.is_at(await store.unobserved_since("s"), left)
    await store.observe("s", "n1", 1)
    assert await store.unobserved_since("s") is None


async def test_a_return_starts_the_time_again(store: Store, clock: Clock) -> None:
    """Only the last departure counts."""
    await store.renew("n1", 60_000, LiveNode())
    for _ in range(2):
        await clock.pass_ms(500)
        await store.observe("s", "n1", 1)
        await clock.pass_ms(500)
        await store.observe("s", "n1", 0)
    assert clock.is_at(await store.unobserved_since("s"), clock.now)


async def test_counts_of_a_lost_lease_do_not_count(store: Store, clock: Clock) -> None:
    """The observers of a node that died are gone since its lease ended."""
    await store.renew("n1", 1_000, LiveNode())
    await store.observe("s", "n1", 1)
    ended = clock.now + 1_000
    await clock.pass_ms(5_000)
    assert clock.is_at(await store.unobserved_since("s"), ended)
    await store.observe("s", "n1", 0)
    assert clock.is_at(await store.unobserved_since("s"), ended)


async def test_who_left_last_is_not_forgotten_for_who_was_gone_before(store: Store, clock: Clock) -> None:
    """Observers whose lease had run out long ago, taken away late, do not set the time back."""
    await store.renew("n1", 1_000, LiveNode())
    await store.renew("n2", 60_000, LiveNode())
    await store.observe("s", "n1", 1)
    await store.observe("s", "n2", 1)
    await clock.pass_ms(5_000)
    await store.observe("s", "n2", 0)
    left = clock.now
    await clock.pass_ms(500)
    await store.observe("s", "n1", 0)
    assert clock.is_at(await store.unobserved_since("s"), left)


async def test_counts_of_a_renewed_lease_count_again(store: Store, clock: Clock) -> None:
    """A node that comes back still has its observers, and they leave when they leave."""
    await store.renew("n1", 1_000, LiveNode())
    await store.observe("s", "n1", 1)
    await clock.pass_ms(2_000)
    await store.renew("n1", 1_000, LiveNode())
    assert await store.unobserved_since("s") is None
    await clock.pass_ms(500)
    await store.observe("s", "n1", 0)
    assert clock.is_at(await store.unobserved_since("s"), clock.now)


async def test_release_takes_the_observers_along(store: Store, clock: Clock) -> None:
    """The observers of a node that left are gone since it left."""
    await store.renew("n1", 60_000, LiveNode())
    await store.observe("s", "n1", 3)
    await clock.pass_ms(500)
    await store.release("n1")
    left = clock.now
    await clock.pass_ms(500)
    assert clock.is_at(await store.unobserved_since("s"), left)


async def test_a_node_without_a_lease_observes_nothing(store: Store, clock: Clock) -> None:
    """Presence hangs on the lease from the beginning."""
    await store.observe("s", "n1", 1)
    assert clock.is_at(await store.unobserved_since("s"), clock.now)
    await store.observe("s", "n1", 0)
    assert clock.is_at(await store.unobserved_since("s"), clock.now)


async def test_a_lease_says_what_its_node_said_last(store: Store, clock: Clock) -> None:
    """Which agents it can run, whether it stays, and since when it runs; one that gave it up says nothing any more."""
    both = LiveNode(frozenset({"a", "b"}), accepting=True, since=17)
    await store.renew("n1", 1_000, both)
    await store.renew("n2", 1_000, LiveNode())
    assert await store.live() == {"n1": both, "n2": LiveNode()}
    leaving = LiveNode(frozenset({"b"}), accepting=False, since=17)
    await store.renew("n1", 2_000, leaving)
    await clock.pass_ms(1_000)
    assert await store.live() == {"n1": leaving}
    await store.release("n1")
    assert await store.live() == {}


async def test_a_lease_is_renewed_at_the_time_of_the_store(store: Store, clock: Clock) -> None:
    """Whoever renews it learns what the clock says that leases go by."""
    assert clock.is_at(await store.renew("n1", 1_000, LiveNode()), clock.now)
    await clock.pass_ms(123)
    assert clock.is_at(await store.renew("n1", 1_000, LiveNode()), clock.now)


async def test_present_are_the_observers_of_live_nodes(store: Store, clock: Clock) -> None:
    """Each node says who they are; what it says last counts, while it holds its lease and somebody is there."""
    await store.renew("n1", 60_000, LiveNode())
    await store.renew("n2", 1_000, LiveNode())
    assert await store.present("s") == {}
    await store.observe("s", "n1", 1, b"ana")
    await store.observe("s", "n1", 2, b"ana and ben")
    await store.observe("s", "n2", 1, b"cleo")
    await store.observe("other", "n2", 3)
    assert await store.present("s") == {"n1": Presence(2, b"ana and ben"), "n2": Presence(1, b"cleo")}
    assert await store.present("other") == {"n2": Presence(3, b"")}
    await clock.pass_ms(1_000)
    assert await store.present("s") == {"n1": Presence(2, b"ana and ben")}
    await store.renew("n2", 1_000, LiveNode())
    await store.observe("s", "n1", 0)
    assert await store.present("s") == {"n2": Presence(1, b"cleo")}
    await store.release("n2")
    assert await store.present("s") == {}
    await store.observe("s", "n3", 1, b"of a node without a lease")
    assert await store.present("s") == {}
