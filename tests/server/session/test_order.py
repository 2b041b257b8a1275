"""What one connection asks takes effect in the order it was asked, however busy the session is."""

from __future__ import annotations

import asyncio

from tests.support.cluster import cluster
from tests.support.doubles import Device, ListWire, settled


async def test_history_does_not_overtake_a_send() -> None:
    """The actor is busy with an append when both come: the page has the message that was sent before."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.pause("append")
        call.say("one")
        await settled()
        sent = device.ask("send", id="r2", text="then", whenBusy="alongside")
        page = asyncio.ensure_future(device.history())
        await settled()
        assert not page.done()
        h.road.resume()
        assert (await sent)["outcome"] == "started"
        messages = (await page)[0]["messages"]
        assert [message["runId"] for message in messages if message["role"] == "user"] == ["r1", "r2"]


async def test_a_reload_that_fails_in_a_join_leaves_no_reader_with_a_gap() -> None:
    """Another node's events were folded and could not be read for the readers: the session fails, and they resume."""
    async with cluster(shared=True) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        h.road.deaf = True
        await two.send("send", id="r1", text="go")
        h.road.broken.add("read")
        late = Device(one.session, device="late")
        joining = asyncio.gather(late.join(), return_exceptions=True)
        await settled()
        h.road.broken.clear()
        h.road.deaf = False
        await joining
        assert one.wire.closed
        again = Device(await h.session(), device="d1")
        again.reader = one.reader
        await again.resume()
        await two.send("cancel", id="k1", runId="r1")
        await again.wire.event("run.ended", runId="r1")
        assert again.messages == two.messages


async def test_a_join_is_decided_on_a_head_that_was_read_after_it_came() -> None:
    """Through a node that heard nothing of what another one wrote, while its actor is busy with an older look."""
    async with cluster(shared=True) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        h.road.deaf = True
        h.road.pause("heads")
        one.session.store_moved()
        await h.road.arrived.wait()
        happened: list[str] = []

        async def looked(method: str) -> None:
            happened.append(method)

        h.road.before = looked
        late = Device(one.session, device="late")
        late.wire = late.subscriber.wire = ListWire(heard=lambda message: happened.append(message["type"]))
        joining = asyncio.ensure_future(late.join())
        await settled()
        h.road.resume()
        await joining
        assert "heads" in happened[: happened.index("welcome")], "the look that went on when it came does not count"
        h.road.before = None
        await two.send("send", id="r1", text="go")
        after = await Device(one.session, device="after").join()
        assert after.wire.received[0]["head"] == two.reader.seq
        h.road.deaf = False
