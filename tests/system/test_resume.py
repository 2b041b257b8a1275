"""Coming back with any cursor: the rest of the log and nothing else, or a snapshot that says it is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC, Codec, Snapshot, Transcript
from tests.support.plain_client import Message, PlainClient, dial, greeted
from tests.support.program import Serve
from tests.support.python_client import counted

Cursor = dict[str, Any]


async def test_every_place_of_a_log_can_be_resumed_from(demo: Serve, session: str) -> None:
    """From each cursor of a log with a run that goes on come exactly the events after it, to the same transcript."""
    async with greeted(demo.url, session) as first:
        await first.command("send", "r1", text="count to 5")
        await first.type("run.ended")
        await first.command("send", "r2", text="count to 10000")
        for _ in range(10):
            await first.type("run.chunk")
        early = list(first.events)
        epoch = first.received[0]["epoch"]
        for seq in range(len(early) + 1):
            at = {"at": early[seq - 1]["at"]} if seq else {}
            cursor = {"epoch": epoch, "seq": seq, **at}
            codec = MSGPACK_CODEC if seq % 2 else JSON_CODEC
            async with greeted(demo.url, session, codec=codec, cursor=cursor) as wire:
                assert wire.received[0]["resume"] == "tail"
                assert covered(wire.events) == list(range(seq + 1, wire.events[-1]["seq"] + 1))
                assert wire.events[-1]["seq"] >= len(early)
        await first.command("cancel", "k1", runId="r2")
        await first.command("ping", "p1")
    assert covered(first.events) == list(range(1, first.events[-1]["seq"] + 1))
    middle = Transcript()
    async with greeted(demo.url, session) as wire:
        assert wire.received[0]["resume"] == "snapshot"
        fold(middle, wire)
    whole = Transcript()
    whole.epoch = epoch
    async with greeted(demo.url, session, cursor={"epoch": epoch, "seq": 0}) as wire:
        fold(whole, wire)
    assert whole.messages() == middle.messages()


def covered(events: list[Message]) -> list[int]:
    """The seqs that the events stand for."""
    return [seq for event in events for seq in range(event.get("from", event["seq"]), event["seq"] + 1)]


def fold(transcript: Transcript, wire: PlainClient) -> None:
    """What a client makes of what it received."""
    for message in wire.received:
        if message["type"] == "snapshot":
            transcript.load(cast("Snapshot", message))
    for event in wire.events:
        transcript.apply(event)


@pytest.mark.parametrize("codec", [JSON_CODEC, MSGPACK_CODEC], ids=["json", "msgpack"])
async def test_a_cursor_that_does_not_fit_is_told_so(demo: Serve, session: str, codec: Codec) -> None:
    """Another epoch, the future, another time or none at a place: `reset`, with a snapshot of everything."""
    async with greeted(demo.url, session) as first:
        await first.command("send", "r1", text="count to 3")
        await first.type("run.ended")
        epoch, last = first.received[0]["epoch"], first.events[-1]
    here = {"epoch": epoch, "seq": last["seq"], "at": last["at"]}
    wrong: list[Cursor] = [
        {**here, "epoch": "another"},
        {**here, "seq": last["seq"] + 1},
        {**here, "seq": 2**53 - 1},
        {**here, "at": last["at"] + 1},
        {"epoch": epoch, "seq": last["seq"]},
    ]
    for cursor in wrong:
        async with greeted(demo.url, session, codec=codec, cursor=cursor) as wire:
            assert wire.received[0]["resume"] == "reset"
            snapshot = wire.received[1]
            assert (snapshot["type"], snapshot["seq"], snapshot["reset"]) == (
                "snapshot",
                last["seq"],
                cursor["epoch"] != epoch,
            )
            assert snapshot["messages"][1]["parts"][0]["text"] == counted(3)
    async with greeted(demo.url, session, codec=codec, cursor=here) as wire:
        assert [message["type"] for message in wire.received[:2]] == ["welcome", "caughtUp"]
        assert wire.received[0]["resume"] == "tail"


async def test_a_cursor_that_is_none_closes_the_connection(demo: Serve, session: str) -> None:
    """A cursor of the wrong form is `invalid`, naming the place, and the connection is closed with 4501."""
    for cursor, path in (({"epoch": "e", "seq": -1}, "$.cursor.seq"), ({"seq": 1}, "$.cursor.epoch"), (7, "$.cursor")):
        async with dial(demo.url, session) as wire:
            await wire.say("hello", cursor=cursor)
            assert await wire.closed() == 4501
            assert [(message["code"], message["path"]) for message in wire.received] == [("invalid", path)]


async def test_a_log_that_was_trimmed_is_told_by_a_snapshot(tmp_path: Path) -> None:
    """After the replay window an old cursor gets `reset`, and the snapshot has what the trimmed events said."""
    with Serve("--demo-words-per-second", "10000", cwd=tmp_path, env={"HOLDFAST_REPLAY_WINDOW_MS": "0"}) as server:
        async with greeted(server.url, "s") as first:
            await first.command("send", "r1", text="count to 2000")
            await first.type("run.ended")
            epoch = first.received[0]["epoch"]
        resumes: list[str] = []
        snapshots: list[Message] = []
        while not snapshots:  # until a checkpoint has trimmed it, and newer events have driven it from memory
            async with greeted(server.url, "s", cursor={"epoch": epoch, "seq": 0}, messages=200) as wire:
                resumes.append(wire.received[0]["resume"])
                snapshots = [message for message in wire.received if message["type"] == "snapshot"]
                await wire.command("send", f"r{len(resumes) + 1}", text="count to 2000")
                await wire.type("run.ended")
            assert len(resumes) < 200, "the log is not trimmed"
        assert (set(resumes[:-1]), resumes[-1]) == ({"tail"}, "reset")
        texts = [message["parts"][0]["text"] for snapshot in snapshots for message in snapshot["messages"]]
        assert texts == (["count to 2000", counted(2000)] * len(resumes))[-200:]
