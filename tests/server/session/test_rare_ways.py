"""What is seen only when something goes a rare way: two causes at once, or somebody who has gone meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.protocol.commands import Cursor
from holdfast.server.errors import SessionFailedError
from holdfast.server.session.subscriber import Subscriber
from tests.support.cluster import cluster
from tests.support.doubles import Device, settled


async def test_one_catch_up_at_a_time_brings_a_reader_up() -> None:
    """A reader that is behind already is given no second one, whatever else happens to its session."""
    async with cluster() as h:
        device = await h.device()
        device.wire.congested = True
        for _ in range(3):
            device.session.subscribers.reset_all(new_epoch=False)
            await settled()
        going_on = [task for task in asyncio.all_tasks() if task.get_name() == "catch up c-d1"]
        device.wire.flow()
        assert len(going_on) == 1


async def test_nothing_is_read_for_a_connection_that_is_closed() -> None:
    """One that was closed while it joined is not brought up: what the log holds is left where it is."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        (await h.puppet.call()).end()
        await device.wire.event("run.ended")
        late = Device(device.session, device="late")
        late.leave()
        await late.join()
        assert late.subscriber.snapshot, "it is still what it would need next"
        assert late.subscriber.seq == 0


async def test_a_session_with_a_command_on_its_way_is_not_closed() -> None:
    """Its sender has left and the store says nothing: the command gets into the log, and its run is worked on."""
    async with cluster() as h:
        device = await h.device()
        h.road.pause("append")
        answer = device.ask("send", id="r1", text="go")
        device.leave()
        await h.release()
        await h.clock.pass_ms(60_000, 1_000)
        assert (await answer)["code"] == "unavailable"
        assert h.nodes[0].sessions == {"s": device.session}
        h.road.resume()
        call = await h.puppet.call()
        call.end()
        await settled()
        assert h.kinds("r1")[-1] == "run.ended"


async def test_an_observer_whose_node_has_died_is_missed() -> None:
    """Nobody says that it has gone: the node that works on the run looks again by itself, and ends it as abandoned."""
    async with cluster(shared=True) as h:
        await h.start()
        sender = await h.device("d1")
        await h.device("d2", number=1)
        await sender.send("send", id="r1", text="go", whenAbandoned={"cancelAfterMs": 10_000})
        await h.puppet.call()
        sender.leave()
        await h.clock.pass_ms(30_000, 1_000)
        assert h.of("r1", "run.ended") == []
        await h.kill(1)
        await h.clock.pass_ms(9_000, 1_000)
        assert h.of("r1", "run.ended") == []
        await h.clock.pass_ms(7_000, 1_000)
        assert h.of("r1", "run.ended")[0]["cause"] == "abandoned"


async def test_who_joins_while_the_session_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cursor was still being looked up: it is not left waiting in a session that is over."""
    async with cluster() as h:
        device = await h.device()
        session = device.session
        join = session.subscribers.join

        async def meanwhile(subscriber: Subscriber, cursor: Cursor | None) -> Any:
            h.road.broken.add("append")
            await device.send("send", id="r1", text="go")
            h.road.broken.clear()
            assert session.failed
            return await join(subscriber, cursor)

        monkeypatch.setattr(session.subscribers, "join", meanwhile)
        with pytest.raises(SessionFailedError):
            await Device(session, device="late").join()
