"""A node that starts or stops while its store fails or says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Set

import pytest
from typing_extensions import override

from holdfast.server.errors import StoreUnavailableError
from holdfast.server.node.node import Node
from holdfast.server.session.actor import Session
from holdfast.server.store import MemoryStore, Owed
from tests.support.cluster import cluster
from tests.support.doubles import Device, FakeClock, settled

PATIENCE_SECONDS = 10
"""A test that waits longer than this has failed."""


async def test_a_session_that_cannot_be_closed_holds_up_no_stop() -> None:
    """Nobody uses it any more, it is being closed, and its store says nothing: the node stops all the same."""
    async with cluster() as h:
        device = await h.device()
        h.road.pause("observe")
        device.leave()
        await h.release()
        await h.clock.pass_ms(40_000, 1_000)
        assert h.nodes[0].sessions == {}, "it is being closed"
        async with asyncio.timeout(PATIENCE_SECONDS):
            await h.nodes[0].stop(0.1)


@pytest.mark.parametrize("silent", ["renew", "release"])
async def test_a_lease_that_the_store_does_not_answer_for_holds_up_no_stop(silent: str) -> None:
    """Neither the round that renews it nor its release is waited for without an end."""
    async with cluster() as h:
        h.road.pause(silent)
        await h.clock.pass_ms(1_000)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await h.nodes[0].stop(0.1)


class Forgetful(MemoryStore):
    """A store whose index cannot be read."""

    closed = False

    @override
    async def orphans(self, live: Set[str], now: int) -> dict[str, Owed]:
        raise StoreUnavailableError("no connection")

    @override
    async def close(self) -> None:
        self.closed = True


async def test_a_node_that_fails_to_start_closes_its_store() -> None:
    """The next try can have it."""
    store, clock = Forgetful(), FakeClock()
    with pytest.raises(StoreUnavailableError):
        await Node(store, {}, clock=clock).start()
    assert store.closed
    assert await store.live() == {}
    await settled()
    assert clock.waiting == 0


async def test_a_reader_that_does_not_read_holds_up_no_close() -> None:
    """Its catch-up waits for room on its wire, and for good: it ends with the session."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        device.wire.congested = True
        (await h.puppet.call()).say("word")
        await settled()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await device.session.close()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("catch up")]


async def test_a_session_is_opened_when_the_one_before_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two actors of one session at once would race each other on one node."""
    close, gate = Session.close, asyncio.Event()

    async def slowly(self: Session) -> None:
        await close(self)
        await gate.wait()

    monkeypatch.setattr(Session, "close", slowly)
    async with cluster() as h:
        device = await h.device()
        device.leave()
        await h.release()
        await h.clock.pass_ms(40_000, 1_000)
        assert h.nodes[0].sessions == {}, "it is being closed"
        opening = asyncio.ensure_future(h.session())
        await settled()
        assert not opening.done()
        gate.set()
        assert (await opening) is not device.session


async def test_a_session_with_a_time_to_come_is_not_closed() -> None:
    """Nobody is there and nothing works, but a queued run has a deadline that only an open session keeps."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        (await h.puppet.call()).say("word")
        await device.send("send", id="r2", text="then", deadlineMs=90_000)
        h.nodes[0].accepting = False
        (await h.puppet.call()).end()
        await device.wire.event("run.ended", runId="r1")
        device.leave()
        await h.release()
        await h.clock.pass_ms(80_000, 1_000)
        assert h.of("r2", "run.ended") == []
        await h.clock.pass_ms(11_000, 1_000)
        assert h.of("r2", "run.ended")[0]["cause"] == "deadline"
        await h.clock.pass_ms(40_000, 1_000)
        assert h.nodes[0].sessions == {}


async def test_a_session_that_is_held_open_is_not_closed() -> None:
    """However long nothing goes on in it: whoever holds it may be about to join."""
    async with cluster() as h:
        session = await h.session()
        await h.clock.pass_ms(70_000, 1_000)
        assert h.nodes[0].sessions == {"s": session}
        device = await Device(session).join()
        assert device.wire.received[0]["type"] == "welcome"
        device.leave()
        await h.release()
        await h.clock.pass_ms(70_000, 1_000)
        assert h.nodes[0].sessions == {}


async def test_what_is_owed_stands_in_the_index() -> None:
    """A run by its node and by its deadline; a queue by nobody, once no run has to end for it; and what is over not."""
    async with cluster() as h:
        device, node, now = await h.device(), h.nodes[0], h.clock.now()
        await device.send("send", id="r1", text="go", deadlineMs=90_000)
        await device.send("send", id="r2", text="then")
        call = await h.puppet.call()
        living = {node.node}
        running = {"s": Owed(frozenset(living), due_at=now + 90_000)}
        assert await h.store.orphans(frozenset(), now) == running
        assert await h.store.orphans(living, now + 89_999) == {}
        assert await h.store.orphans(living, now + 90_000) == running
        node.accepting = False
        call.end()
        await device.wire.event("run.ended", runId="r1")
        assert await h.store.orphans(living, now) == {"s": Owed(queued=True)}
        await device.send("cancel", id="k1", runId="r2")
        assert await h.store.orphans(frozenset(), now + 90_000) == {}


async def test_the_heads_of_all_sessions_are_one_question() -> None:
    """Each second for those with work, however many they are; and what has moved unheard is found."""
    async with cluster(shared=True) as h:
        await h.start()
        here = [await h.device(session=f"s{number}") for number in range(5)]
        there = await h.device(number=1, session="s3")
        for device in here:
            await device.send("send", id="r1", text="go")
        await settled()
        h.road.deaf = True
        await there.send("cancel", id="k1", runId="r1")
        asked = h.road.calls["heads"]
        await h.clock.pass_ms(1_000)
        await here[3].wire.event("run.ended", runId="r1")
        assert h.road.calls["heads"] - asked == 2, "one for all, and one more in the session that has moved"


async def test_behind_a_gap_every_session_is_looked_after() -> None:
    """What was missed is found at once, and not with the next round."""
    async with cluster(shared=True) as h:
        await h.start()
        here, there = await h.device(), await h.device("d2", number=1)
        h.road.deaf = True
        await there.send("send", id="r1", text="go")
        assert "run.started" not in [message["type"] for message in here.wire.received]
        h.road.gap()
        await here.wire.event("run.started", runId="r1")


async def test_a_session_that_was_closed_is_not_heard_of() -> None:
    """Its node pays nothing for what others do there."""
    async with cluster(shared=True) as h:
        await h.start()
        here, there = await h.device(), await h.device("d2", number=1)
        here.leave()
        await h.release()
        there.leave()
        await h.clock.pass_ms(40_000, 1_000)
        assert h.nodes[0].sessions == {}
        heard = h.road.calls["heard"]
        again = await h.device("d3", number=1)
        await again.send("send", id="r1", text="go")
        (await h.puppet.call()).end()
        await again.wire.event("run.ended", runId="r1")
        assert h.road.calls["heard"] == heard
        h.road.broken.add("unwatch")
        last = await h.session(0)
        await h.release()
        await h.clock.pass_ms(40_000, 1_000)
        assert h.nodes[0].sessions == {}, "a store that cannot do it keeps no session open"
        assert last.head.seq > 0


async def test_a_node_without_users_pays_nothing_for_the_sessions_of_others() -> None:
    """However much goes on there: it holds its lease and reads the index, and opens what nobody alive sees to."""
    async with cluster(shared=True) as h:
        await h.start()
        devices = [await h.device(session=f"s{number}") for number in range(3)]
        for device in devices:
            await device.send("send", id="r1", text="go")
        calls = [await h.puppet.call() for _ in devices]
        idle = h.roads[1]
        idle.calls.clear()
        for _ in range(20):
            for call in calls:
                call.say("word ")
            await h.clock.pass_ms(1_000)
        assert h.nodes[1].sessions == {}
        assert idle.calls == {"renew": 20, "live": 4, "orphans": 4}
        for device in devices:
            device.leave()
        await h.kill()
        await h.clock.pass_ms(6_000, 1_000)
        assert sorted(h.nodes[1].sessions) == ["s0", "s1", "s2"]
        for device in devices:
            assert h.store.events(device.session.id)[-1]["type"] == "run.ended"


async def test_what_is_overdue_is_seen_to_by_whoever_finds_it() -> None:
    """Its owner holds its lease and does nothing: another one does it, a while behind the time."""
    async with cluster(shared=True) as h:
        await h.start()
        device = await h.device()
        await device.send("send", id="r1", text="go", deadlineMs=10_000)
        await h.puppet.call()
        h.road.pause("append")
        await h.clock.pass_ms(14_000, 1_000)
        assert h.of("r1", "run.ended") == []
        await h.clock.pass_ms(7_000, 1_000)
        assert [event["reason"] for event in h.of("r1", "run.ended")] == ["expired"]
        h.road.resume()
