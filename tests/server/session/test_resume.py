"""Joining, coming back at any cursor, and reading slowly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.protocol import MSGPACK_CODEC, CloseCode
from holdfast.server.session.subscriber import WAITING_CONTROLS
from holdfast.server.settings import SessionSettings
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled


async def _talk(h: Cluster, device: Device, run_id: str = "r1", words: int = 5) -> None:
    await device.send("send", id=run_id, text="go")
    call = await h.puppet.call(len(h.puppet.calls))
    for word in range(words):
        call.say(f"{run_id}.{word} ")
        await settled()
    call.end()
    await device.wire.event("run.ended", runId=run_id)


async def test_every_cursor_of_the_log_is_resumed_by_its_tail() -> None:
    """From wherever it stands, a device gets exactly what it missed, and shows what the others show."""
    async with cluster() as h:
        device = await h.device()
        await _talk(h, device)
        epoch = device.reader.epoch
        events = h.events()
        for event in [{"seq": 0, "at": None}, *events]:
            late = Device(device.session, device="late")
            cursor = {"epoch": epoch, "seq": event["seq"]} | ({"at": event["at"]} if event["seq"] else {})
            late.reader.epoch, late.reader.seq = epoch, event["seq"]
            await late.join(cursor)
            assert late.wire.received[0]["resume"] == "tail"
            assert late.reader.seq == len(events)
            covered = [message for message in late.wire.received if "." in message["type"]]
            assert sum(message["seq"] - message.get("from", message["seq"]) + 1 for message in covered) <= len(events)
            late.leave()


@pytest.mark.parametrize(
    "wrong",
    [{"epoch": "other"}, {"seq": 1_000}, {"at": 5}, {"at": None}],
    ids=["epoch", "beyond", "time", "no time"],
)
async def test_a_cursor_that_does_not_fit_is_reset(wrong: dict[str, Any]) -> None:
    """Of another epoch, beyond the head, or of an event with another time: a snapshot instead of a tail."""
    async with cluster() as h:
        device = await h.device()
        await _talk(h, device)
        cursor = {**(device.cursor() or {}), **wrong}
        late = await Device(device.session, device="late").join({k: v for k, v in cursor.items() if v is not None})
        assert late.wire.received[0]["resume"] == "reset"
        assert late.wire.received[1]["reset"] is ("epoch" in wrong)
        assert late.messages == device.messages


async def test_a_cursor_older_than_what_is_kept_is_reset() -> None:
    """After the replay window raw events are trimmed, and whoever comes from before gets a snapshot."""
    async with cluster(settings=SessionSettings(replay_window_ms=60_000, recent_events=2)) as h:
        device = await h.device()
        await _talk(h, device, "r1")
        old = device.cursor()
        for number in range(2, 6):
            await h.clock.pass_ms(40_000, 1_000)
            await _talk(h, device, f"r{number}")
        await h.clock.pass_ms(2_000)
        assert (await h.store.read("s", 0)).floor > 0
        late = Device(device.session, device="late")
        await late.join(old)
        assert late.wire.received[0]["resume"] == "reset"
        assert [message["id"] for message in late.messages] == [message["id"] for message in device.messages]


async def test_a_join_between_an_append_and_its_fan_out_misses_and_doubles_nothing() -> None:
    """Joins run between commits: whatever is on its way comes after `caughtUp`, once."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.pause("append")
        call.say("a")
        await settled()
        late = Device(device.session, device="late", codec=MSGPACK_CODEC)
        h.road.resume()
        await late.join()
        call.say("b")
        call.end()
        await late.wire.event("run.ended")
        assert late.text("r1") == "ab"
        assert [message["type"] for message in late.wire.received[:3]] == ["welcome", "snapshot", "caughtUp"]


async def test_a_slow_reader_gets_merged_events_and_its_answers_behind_them() -> None:
    """While its wire is congested nothing is written; then the range comes merged, and the ack after it."""
    async with cluster() as h:
        slow, fast = await h.device("slow"), await h.device("fast")
        await fast.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await settled()
        slow.wire.congested = True
        before = len(slow.wire.received)
        for number in range(50):
            call.say(f"{number} ")
            await settled(10)
        assert len(call.said) == 50
        assert fast.text("r1") == "".join(f"{number} " for number in range(50))
        answer = slow.ask("cancel", id="k1", runId="r1")
        assert (await answer)["outcome"] == "cancelled"
        assert len(slow.wire.received) == before
        slow.wire.flow()
        await slow.wire.event("run.settled")
        await settled()
        merged = [message for message in slow.wire.received if "from" in message]
        assert len(merged) == 1
        assert merged[0]["seq"] - merged[0]["from"] == 49
        types = [message["type"] for message in slow.wire.received]
        assert types.index("ack") > types.index("run.ended")
        assert slow.messages == fast.messages


async def test_a_reader_that_missed_very_much_gets_a_snapshot() -> None:
    """Beyond a bound the events are not read again: the snapshot says the same in less."""
    async with cluster(settings=SessionSettings(snapshot_beyond=20)) as h:
        slow, fast = await h.device("slow"), await h.device("fast")
        await fast.send("send", id="r1", text="go")
        call = await h.puppet.call()
        slow.wire.congested = True
        for number in range(30):
            call.say(f"{number} ")
            await settled(10)
        slow.wire.flow()
        await settled()
        snapshots = [message for message in slow.wire.received if message["type"] == "snapshot"]
        assert [message["reset"] for message in snapshots] == [False, False]
        assert slow.text("r1") == fast.text("r1")


async def test_answers_that_wait_for_a_slow_reader_are_bounded() -> None:
    """More of them than the bound, and the connection is closed as too slow; nobody else notices."""
    async with cluster() as h:
        slow, fast = await h.device("slow"), await h.device("fast")
        await fast.send("send", id="r1", text="go")
        call = await h.puppet.call()
        slow.wire.congested = True
        call.say("a")
        await settled()
        for number in range(WAITING_CONTROLS + 1):
            await slow.send("withdraw", id=f"w{number}", steerId="none")
        assert slow.wire.closed_with is CloseCode.TOO_SLOW
        call.end()
        assert (await fast.wire.event("run.ended"))["reason"] == "completed"


async def test_presence_names_who_is_here() -> None:
    """On every change, at most once a second."""
    async with cluster() as h:
        one = await h.device("d1")
        await h.clock.pass_ms(1_100)
        two = await h.device("d2")
        two.leave()
        await h.device("d3")
        await h.clock.pass_ms(1_100)
        told = [message for message in one.wire.received if message["type"] == "presence"]
        assert [sorted(entry["device"] for entry in message["devices"]) for message in told] == [["d1"], ["d1", "d3"]]


@pytest.mark.parametrize("paused", ["heads", "read"])
async def test_a_join_that_was_given_up_leaves_nobody_behind(paused: str) -> None:
    """Its connection is gone before the store answers: nobody is taken in afterwards."""
    async with cluster(shared=True, settings=SessionSettings(recent_events=1)) as h:
        device = await h.device()
        await _talk(h, device)
        late = Device(device.session, device="late")
        h.road.pause(paused)
        joining = asyncio.create_task(late.join({"epoch": device.reader.epoch, "seq": 1, "at": h.clock.now()}))
        await settled()
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        late.leave()
        h.road.resume()
        await settled()
        assert list(device.session.subscribers.present) == [device.subscriber]


async def test_a_cursor_in_the_middle_with_another_time_is_reset() -> None:
    """The time is compared with the event's own wherever the cursor stands: the log may have been written anew."""
    async with cluster() as h:
        device = await h.device()
        await _talk(h, device)
        event = h.events()[1]
        for at, resume in ((event["at"], "tail"), (event["at"] + 1, "reset")):
            cursor = {"epoch": device.reader.epoch, "seq": event["seq"], "at": at}
            late = Device(device.session, device="late")
            late.reader.epoch, late.reader.seq = device.reader.epoch, event["seq"]
            await late.join(cursor)
            assert late.wire.received[0]["resume"] == resume
            late.leave()
