"""Much at once: a large batch, a large yield, many answers. Readers fall behind for it, and nobody is closed."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from holdfast.protocol import CloseCode, Codec
from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from holdfast.server.session.subscriber import WAITING_CONTROL_BYTES, WAITING_CONTROLS
from holdfast.server.session.worker import RunWorker
from holdfast.server.settings import SessionSettings
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, ListWire, settled
from tests.support.served import CODECS

_ROOM = 64 * 1024
_MEGABYTE = 1024 * 1024


class FullWire(ListWire):
    """A wire with a buffer: full, it is congested until the event loop has had a turn, as a transport's is."""

    waiting = most = 0

    def write(self, frames: bytes) -> None:
        """Counts what waits."""
        super().write(frames)
        self.waiting += len(frames)
        self.most = max(self.most, self.waiting)
        if self.waiting > _ROOM and not self.congested:
            self.congested = True
            asyncio.get_running_loop().call_soon(self._sent)

    def _sent(self) -> None:
        self.waiting = 0
        self.flow()


def _full_wire(device: Device, codec: Codec) -> FullWire:
    wire = FullWire(codec, device.wire._heard)  # pyright: ignore[reportPrivateUsage]
    device.wire = device.subscriber.wire = wire
    return wire


async def _run(h: Cluster, agent: Any) -> None:
    h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
    await h.devices[0].send("send", id="r1", text="go")


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)
async def test_a_large_batch_does_not_fill_the_buffer_of_a_reader(codec: Codec) -> None:
    """Of megabytes in one commit a reader is written what it has room for; it falls behind, and gets the rest."""
    async with cluster(settings=SessionSettings(waiting_bytes=64 * _MEGABYTE)) as h:
        device = await h.device()
        wire = _full_wire(device, codec)

        async def agent(run: Run) -> None:
            h.road.pause("append")
            await run.text("a")
            await h.road.arrived.wait()
            await run.text("é" * (4 * _MEGABYTE))
            h.road.resume()

        await _run(h, agent)
        await wire.event("run.ended", reason="completed")
        assert device.text("r1") == "a" + "é" * (4 * _MEGABYTE)
        chunks = [event for event in h.events() if event["type"] == "run.chunk"]
        assert len(chunks) > 100
        assert wire.most < _ROOM + 400_000
        assert not wire.closed


async def test_a_large_yield_waits_for_room() -> None:
    """However long one text is, only so much of it waits for the store; the whole of it arrives, in order."""
    text = "".join(f"{number:07}." for number in range(_MEGABYTE // 2))
    async with cluster() as h:
        device = await h.device()
        most = 0

        async def agent(run: Run) -> None:
            await run.text(text)

        async def watched(method: str) -> None:
            nonlocal most
            session = h.nodes[0].sessions["s"]
            for worker in session.workers.values():
                at_work = cast("RunWorker", worker)
                most = max(most, at_work._waiting_bytes)  # pyright: ignore[reportPrivateUsage]

        h.road.before = watched
        await _run(h, agent)
        await device.wire.event("run.ended", reason="completed")
        assert device.text("r1") == text
        assert 0 < most <= h.settings.waiting_bytes + 40_000


async def test_nothing_comes_in_between_a_text_that_waits() -> None:
    """What other tasks of the agent say stands before a long text or behind it, of whatever kind."""
    async with cluster() as h:
        device = await h.device()

        async def agent(run: Run) -> None:
            said = [run.text("a" * _MEGABYTE), run.text("<b>"), run.data("n", 1), run.text("c" * _MEGABYTE)]
            await asyncio.gather(*said)

        await _run(h, agent)
        await device.wire.event("run.ended", reason="completed")
        parts = [str(part.get("text", part["kind"])) for part in device.messages[-1]["parts"]]
        for letter in "ac":
            assert sum(letter * _MEGABYTE in part for part in parts) == 1, "a long text was cut in two"
        assert sum(part.count("<b>") for part in parts) == parts.count("data") == 1


@pytest.mark.parametrize("stop", ["cancel", "steer"])
async def test_a_text_that_waits_is_left_where_it_was(stop: str) -> None:
    """Stopped or interrupted in the middle of a long text, a call adds nothing more of it, whichever task said it."""
    async with cluster() as h:
        device = await h.device()
        ended: list[BaseException] = []
        calls = 0

        async def agent(run: Run) -> None:
            nonlocal calls
            calls += 1
            if calls > 1:
                await run.text("then")
                return

            async def say(text: str) -> None:
                try:
                    await run.text(text)
                except asyncio.CancelledError as error:
                    ended.append(error)
                    raise

            tasks = [asyncio.create_task(say(text)) for text in ("a" * 8 * _MEGABYTE, "b")]
            try:
                await asyncio.shield(asyncio.gather(*tasks))
            except asyncio.CancelledError:
                for _ in range(200):
                    await asyncio.sleep(0)
                raise

        await _run(h, agent)
        await settled(5)
        h.road.pause("append")
        await settled()
        if stop == "cancel":
            asked = device.ask("cancel", id="k1", runId="r1")
        else:
            asked = device.ask("steer", id="k1", runId="r1", text="no", boundary="now")
        await settled()
        h.road.resume()
        await asked
        await device.wire.event("run.ended")
        await settled(300)
        assert len(ended) == 2
        text = device.text("r1")
        assert text.rstrip("then").strip("a") == ""
        assert len(text) < 4 * _MEGABYTE
        assert text.endswith("then") is (stop == "steer")


async def test_unavailable_overtakes_the_catch_up() -> None:
    """Whoever has fallen behind is told in time that the store does not answer, though the catch-up needs it too."""
    async with cluster() as h:
        slow, fast = await h.device("slow"), await h.device("fast")
        await fast.send("send", id="r1", text="go")
        call = await h.puppet.call()
        slow.wire.congested = True
        call.say("a")
        await settled()
        assert slow.subscriber.behind
        h.road.pause("append", "read")
        call.say("b")
        await settled()
        slow.ask("cancel", id="k1", runId="r1")
        slow.wire.flow()
        await h.clock.pass_ms(5_000)
        assert (await slow.wire.event("error", id="k1"))["code"] == "unavailable"
        h.road.resume()
        await slow.wire.event("run.ended")


async def test_what_waits_is_sent_once() -> None:
    """Behind the catch-up come the answers that waited for it, and once, and of presence only the newest."""
    async with cluster() as h:
        slow = await h.device("slow")
        await slow.send("send", id="r1", text="go")
        call = await h.puppet.call()
        for word in "ab":
            slow.wire.congested = True
            call.say(word)
            await settled()
            before = len(slow.wire.received)
            await slow.send("withdraw", id=f"w-{word}", steerId="none")
            for total in (1, 2):
                slow.subscriber.control({"type": "presence", "devices": [], "total": total})
            assert slow.wire.received[before:] == []
            slow.wire.flow()
            await settled()
            presence = [message for message in slow.wire.received[before:] if message["type"] == "presence"]
            assert [message["total"] for message in presence] == [2]
        answers = [message["id"] for message in slow.wire.received if message["type"] == "ack"]
        assert answers == ["r1", "w-a", "w-b"]


async def test_answers_that_wait_are_bounded_in_bytes() -> None:
    """Few large ones close a connection that has fallen behind as surely as many small ones, and are forgotten."""
    async with cluster() as h:
        slow = await h.device("slow")
        await slow.send("send", id="r1", text="go")
        call = await h.puppet.call()
        slow.wire.congested = True
        call.say("a")
        await settled()
        message = {"type": "ack", "id": "k", "outcome": "x" * 20_000}
        count = WAITING_CONTROL_BYTES // 20_100
        assert count < WAITING_CONTROLS
        for _ in range(count):
            slow.subscriber.control(message)
        assert not slow.wire.closed
        slow.subscriber.control(message)
        assert slow.wire.closed_with is CloseCode.TOO_SLOW
        assert not slow.subscriber.waiting
