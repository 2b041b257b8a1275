"""What subscribers get where two things come together."""

from __future__ import annotations

import asyncio

from holdfast.protocol import JSON_CODEC
from holdfast.server.settings import SessionSettings
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled


async def _answered(h: Cluster, device: Device, run_id: str, text: str) -> None:
    await device.send("send", id=run_id, text="go")
    call = await h.puppet.call(len(h.puppet.calls))
    call.say(text)
    call.end()
    await device.wire.event("run.ended", runId=run_id)


async def test_a_reset_stays_announced() -> None:
    """A reader that has not been told of a new epoch is told, whatever else it needs a snapshot for; then no more."""
    async with cluster() as h:
        device = await h.device()
        subscribers = device.session.subscribers
        device.wire.congested = True
        subscribers.reset_all(new_epoch=True)
        subscribers.reset_all(new_epoch=False)
        device.wire.flow()
        await settled()
        subscribers.reset_all(new_epoch=False)
        await settled()
        told = [message["reset"] for message in device.wire.received if message["type"] == "snapshot"]
        assert told == [False, True, False]


async def test_presence_is_told_once_a_second_at_most() -> None:
    """However often devices come and go meanwhile; the last state is told in any case."""
    async with cluster() as h:
        one = await h.device("d1")
        await h.clock.pass_ms(5_000)

        def told() -> int:
            return sum(message["type"] == "presence" for message in one.wire.received)

        before = told()
        for _ in range(8):
            other = await Device(one.session, device="d2").join()
            await h.clock.pass_ms(50, 50)
            other.leave()
            await h.clock.pass_ms(50, 50)
        assert told() == before + 1
        await h.clock.pass_ms(300, 50)
        assert told() == before + 2
        assert one.wire.received[-1]["total"] == 1
        await h.clock.pass_ms(5_000)
        assert told() == before + 2


async def test_a_catch_up_takes_a_little_at_a_time() -> None:
    """A reader that takes one message and stands still again has not been given the whole range."""
    async with cluster(settings=SessionSettings(catch_up_bytes=20_000)) as h:
        slow, fast = await h.device("slow"), await h.device("fast")
        await fast.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await settled()
        slow.wire.congested = True
        for number in range(40):
            call.say(f"{number:04}" * 2_500)
            await settled(10)
        head, standing = len(h.events()), slow.subscriber.seq
        write = slow.wire.write

        def one(frames: bytes) -> None:
            write(frames)
            slow.wire.congested = True

        slow.wire.write = one  # type: ignore[method-assign]
        slow.wire.flow()
        await settled()
        assert standing < slow.subscriber.seq <= standing + 4 < head
        slow.wire.write = write  # type: ignore[method-assign]
        slow.wire.flow()
        call.end()
        await slow.wire.event("run.ended")


async def test_a_large_batch_is_read_a_little_at_a_time() -> None:
    """Of a commit of megabytes a reader that is behind is given some, and all of it when it reads."""
    settings = SessionSettings(waiting_bytes=64 * 1024 * 1024, recent_events=2, catch_up_bytes=100_000)
    async with cluster(settings=settings) as h:
        device = await h.device()
        cursor = device.cursor()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.pause("append")
        call.say("a", "b" * 2_000_000)
        await settled()
        h.road.resume()
        await settled()
        call.end()
        await device.wire.event("run.ended")
        head = len(h.events())
        late = Device(device.session, device="late")
        h.devices.append(late)
        late.reader.epoch = device.reader.epoch
        write = late.wire.write

        def one(frames: bytes) -> None:
            write(frames)
            late.wire.congested = True

        late.wire.write = one  # type: ignore[method-assign]
        joining = asyncio.create_task(late.join(cursor))
        for _ in range(4):
            late.wire.flow()
            await settled(20)
        assert late.subscriber.seq < head - 30
        late.wire.write = write  # type: ignore[method-assign]
        late.wire.flow()
        await joining
        assert late.text("r1") == device.text("r1") == "a" + "b" * 2_000_000


async def test_a_reader_that_does_not_read_holds_up_no_stop() -> None:
    """What it would have been sent is not waited for."""
    async with cluster() as h:
        slow, fast = await h.device("slow"), await h.device("fast")
        await fast.send("send", id="r1", text="go")
        call = await h.puppet.call()
        slow.wire.congested = True
        call.say("a")
        await settled()
        assert slow.subscriber.behind
        call.end()
        await fast.wire.event("run.ended")
        await h.release()
        stopping = asyncio.create_task(h.nodes[0].stop())
        await settled(200)
        assert stopping.done()
        await stopping


async def test_recent_events_are_bounded_in_bytes() -> None:
    """What is kept in memory for readers that are a little behind takes no more than its bound, and not nothing."""
    async with cluster(settings=SessionSettings(recent_bytes=20_000)) as h:
        device = await h.device()
        journal = device.session._journal  # pyright: ignore[reportPrivateUsage]
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await settled()
        sizes: list[int] = []
        for _ in range(60):
            call.say("x" * 1_000)
            await settled(10)
            recent = journal._recent  # pyright: ignore[reportPrivateUsage]
            sizes.append(sum(len(JSON_CODEC.encode(event)) for event in recent))
        assert max(sizes) < 24_000
        assert min(sizes[10:]) > 4_000
        call.end()
        await device.wire.event("run.ended")


async def test_many_messages_come_in_few() -> None:
    """Short messages share a snapshot message or a page, and `more` is true where there are older ones."""
    async with cluster() as h:
        device = await h.device()
        for number in range(30):
            await _answered(h, device, f"r{number}", str(number) * 20_000)
        await h.clock.pass_ms(2_000)
        late = await Device(device.session, device="late").join()
        cut = [message for message in late.wire.received if message["type"] == "snapshot"]
        assert len(cut) < 8
        assert {message["more"] for message in cut} == {True}
        pages = await device.history()
        assert len(pages) < 8
        assert {page["more"] for page in pages} == {False}
        for limit, more in ((59, True), (60, False), (61, False)):
            assert {page["more"] for page in await device.history(limit=limit)} == {more}
        newest = (await device.session._journal.cut(None, 60)).newest(50_000)  # pyright: ignore[reportPrivateUsage]
        assert newest.more
