"""Snapshots and pages are of one moment, however long they are and however slowly they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC
from holdfast.protocol.messages import join_continued
from holdfast.protocol.values import EVENT_BYTES, MESSAGE_BYTES
from holdfast.server.errors import StoreError
from holdfast.server.settings import SessionSettings
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled

_LONG = "".join(f"{number:07}é" for number in range(150_000))
"""1.35 MB."""


async def _answered(h: Cluster, device: Device, run_id: str, *texts: str) -> None:
    """A run whose agent says this, and is done."""
    await device.send("send", id=run_id, text="go")
    call = await h.puppet.call(len(h.puppet.calls))
    call.say(*texts)
    call.end()
    await device.wire.event("run.ended", runId=run_id)


def _joined(messages: Iterable[dict[str, Any]]) -> list[Any]:
    joined: list[Any] = []
    for message in messages:
        joined = join_continued(joined, message["messages"])
    return joined


def _sizes(messages: Iterable[dict[str, Any]]) -> list[int]:
    return [max(len(codec.encode(message)) for codec in (JSON_CODEC, MSGPACK_CODEC)) for message in messages]


async def test_a_snapshot_is_of_one_moment_however_long_it_takes() -> None:
    """While its reader takes it, the run goes on, ends and is archived: the snapshot says nothing of that, in all its
    messages, and the events behind it say everything.
    """
    async with cluster() as h:
        device = await h.device()
        await _answered(h, device, "r0", _LONG)
        await h.clock.pass_ms(2_000)
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call(1)
        call.say(_LONG)
        await settled()
        late = Device(device.session, device="late")
        h.devices.append(late)
        receive = late.wire.write

        def write(frames: bytes) -> None:
            receive(frames)
            late.wire.congested = True

        late.wire.write = write  # type: ignore[method-assign]
        seq = len(h.events())
        joining = asyncio.create_task(late.join())
        for step in range(60):
            await settled(20)
            if step == 3:
                assert [message["type"] for message in late.wire.received].count("snapshot") < 5
                call.say(" and more")
                call.end()
            if step == 6:
                await h.clock.pass_ms(2_000)
                assert h.store.compactions > 1
            late.wire.flow()
        await joining
        cut = [message for message in late.wire.received if message["type"] == "snapshot"]
        assert len(cut) > 10
        assert {(message["seq"], message["at"], message["epoch"]) for message in cut} == {
            (seq, cut[0]["at"], cut[0]["epoch"])
        }
        assert [message["last"] for message in cut] == [False] * (len(cut) - 1) + [True]
        answer = _joined(cut)[-1]
        assert (answer["status"], answer["parts"]) == ("streaming", [{"kind": "text", "text": _LONG}])
        assert max(_sizes(cut)) < 2 * EVENT_BYTES
        await settled()
        assert late.messages == device.messages
        assert late.text("r1") == _LONG + " and more"


async def test_long_messages_are_read_from_the_archive_in_pieces() -> None:
    """Long and short ones in any order, those of which a run goes on too: pages hold them all, and no read is large."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="beside", text="go", whenBusy="alongside")
        beside = await h.puppet.call()
        beside.say("still here")
        for number, text in enumerate(["a", _LONG, "b", "c" * 400_000, "d" * 200_000, "e" * 200_000, _LONG, "f"]):
            await device.send("send", id=f"r{number}", text="go", whenBusy="alongside")
            call = await h.puppet.call(number + 1)
            call.say(text)
            call.end()
            await device.wire.event("run.ended", runId=f"r{number}")
        await h.clock.pass_ms(2_000)
        asked: list[str] = []

        async def noted(method: str) -> None:
            asked.append(method)

        h.road.before = noted
        pages = await device.history()
        assert _joined(pages) == device.messages
        assert max(_sizes(pages)) < 2 * EVENT_BYTES
        assert asked.count("message_piece") == 2 * 6 + 2
        assert 3 < asked.count("messages") < 9
        part = await device.history(device.messages[-3]["seq"], 4)
        assert _joined(part) == device.messages[-7:-3]
        assert [page["more"] for page in part] == [True] * len(part)
        assert await device.history(device.messages[0]["seq"]) == [
            {"type": "page", "id": "h", "messages": [], "more": False, "last": True}
        ]
        beside.end()
        await device.wire.event("run.ended", runId="beside")


async def test_nothing_above_the_own_head_is_told() -> None:
    """A node that has not heard of what another one wrote and archived answers as of where it stands."""
    async with cluster(shared=True) as h:
        await h.start()
        near, far = await h.device("d1"), await h.device("d2", number=1)
        await _answered(h, near, "r1", "one")
        await far.wire.event("run.ended", runId="r1")
        await h.clock.pass_ms(2_000)
        h.roads[1].deaf = True
        head = len(h.events())
        await _answered(h, near, "r2", "two")
        await h.clock.pass_ms(1_200)
        assert h.store.compactions > 1
        far.session.subscribers.reset_all(new_epoch=False)
        await settled()
        for told in ([far.wire.received[-1]], await far.history(), await far.history(1_000), await far.history(4)):
            seqs = [message["seq"] for message in _joined(told)]
            assert seqs
            assert max(seqs) <= head
        assert [message.get("runId") for message in await far.session.conversation("r1")] == ["r1"]


async def test_an_agent_sees_no_more_than_the_bound() -> None:
    """Of long messages the newest, as many as fit; its own run's message in any case."""
    async with cluster(settings=SessionSettings(history_bytes=300_000)) as h:
        device = await h.device()
        for number in range(4):
            await _answered(h, device, f"r{number}", str(number) * 120_000)
        await h.clock.pass_ms(2_000)
        await device.send("send", id="r4", text="go")
        call = await h.puppet.call(4)
        seen = [(message["runId"], message["role"]) for message in call.prompt]
        assert seen == [("r2", "user"), ("r2", "assistant"), ("r3", "user"), ("r3", "assistant"), ("r4", "user")]
        assert call.prompt[-2]["parts"] == [{"kind": "text", "text": "3" * 120_000}]
        call.end()
        await device.wire.event("run.ended", runId="r4")


async def test_a_message_larger_than_the_bound_is_seen_alone() -> None:
    """The newest message is seen however large it is."""
    async with cluster(settings=SessionSettings(history_bytes=10)) as h:
        device = await h.device()
        for number in range(2):
            await _answered(h, device, f"r{number}", "x" * 1_000)
        await h.clock.pass_ms(2_000)
        seen = await device.session.conversation("nobody's")
        assert [(message.get("runId"), message["role"]) for message in seen] == [("r1", "assistant")]


@pytest.mark.parametrize("codec", [JSON_CODEC, MSGPACK_CODEC])
async def test_runs_too_are_divided_by_size(codec: Any) -> None:
    """A queue of large messages comes in several snapshot messages, each small enough, and all of it comes."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r0", text="go")
        call = await h.puppet.call()
        for number in range(1, 8):
            sent = await device.send("send", id=f"r{number}", text="x" * 200_000)
            assert sent["outcome"] == "queued"
        late = await Device(device.session, device="late", codec=codec).join()
        cut = [message for message in late.wire.received if message["type"] == "snapshot"]
        assert len(cut) > 5
        assert max(_sizes(cut)) < MESSAGE_BYTES / 2
        assert [run["runId"] for message in cut for run in message["runs"]] == [f"r{number}" for number in range(8)]
        await device.send(
            "cancel", id="k", scope="session", upTo={"epoch": device.reader.epoch, "seq": len(h.events())}
        )
        await call.ended.wait()


async def test_a_reader_that_leaves_in_the_middle_ends_it() -> None:
    """Nothing more is read for a snapshot whose connection has closed."""
    async with cluster() as h:
        device = await h.device()
        await _answered(h, device, "r0", _LONG * 3)
        await h.clock.pass_ms(2_000)
        late = Device(device.session, device="late")

        def heard(message: dict[str, Any]) -> None:
            if message["type"] == "snapshot":
                late.leave()

        late.wire._heard = heard  # pyright: ignore[reportPrivateUsage]
        calls = h.road.calls["message_piece"]
        await late.join()
        assert [message["type"] for message in late.wire.received] == ["welcome", "snapshot"]
        assert h.road.calls["message_piece"] <= calls + 4 < len(_LONG) * 3 / 300_000


async def test_an_archive_that_is_shorter_than_it_was_is_an_error() -> None:
    """What is missing is not told as if it were all: the answer fails."""
    async with cluster() as h:
        device = await h.device()
        await _answered(h, device, "r0", _LONG)
        await h.clock.pass_ms(2_000)
        pages = await device.session.history("h", None, 10)
        archive = h.store._logs["s"].archive  # pyright: ignore[reportPrivateUsage]
        longest = max(archive.values(), key=lambda message: len(message.payload))
        archive[longest.seq] = replace(longest, payload=longest.payload[:600_000])
        with pytest.raises(StoreError, match="shorter"):
            assert not [page async for page in pages if page["last"]]
