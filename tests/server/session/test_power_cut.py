"""The machine went down and the disk has less than was acknowledged: nobody takes one log for the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdfast.server.agents.agent import Agent
from holdfast.server.node.node import Node
from holdfast.server.store import SqliteStore
from tests.support.cluster import cluster
from tests.support.doubles import Device, FakeClock, Puppet, settled


def copy(disk: Path, place: Path) -> None:
    """The database as it lies there, with what belongs to it."""
    place.mkdir()
    for file in disk.parent.glob("holdfast.db*"):
        shutil.copy(file, place)


@pytest.mark.parametrize(("boot", "resume"), [("boot-1", "tail"), ("boot-2", "reset")])
async def test_a_power_cut_is_announced_by_a_new_epoch(tmp_path: Path, boot: str, resume: str) -> None:
    """Clients are reset once, and a stop of what they saw before touches nothing that was asked since.

    Where the machine stayed up nothing can be missing, and everybody goes on where they were.
    """
    clock, puppet = FakeClock(), Puppet()
    agents = {"puppet": Agent("puppet", puppet)}
    disk, left = tmp_path / "holdfast.db", tmp_path / "left" / "holdfast.db"
    node = Node(SqliteStore(disk, clock=clock.now, boot="boot-1"), agents, clock=clock)
    await node.start()
    async with node.open("s") as session:
        device = await Device(session).join()
        await device.send("send", id="r1", text="one")
        (await puppet.call()).end()
        await device.wire.event("run.ended", runId="r1")
        copy(disk, left.parent)  # this is what the disk will have
        lost = 0
        if boot == "boot-2":
            await device.send("send", id="r2", text="two")
            (await puppet.call(1)).say("on screen, and gone")
            await settled()
            lost = device.reader.transcript.seq
        cursor = device.cursor()
        epoch = session._journal.head.epoch  # pyright: ignore[reportPrivateUsage]
    await node.stop()

    node = Node(SqliteStore(left, clock=clock.now, boot=boot), agents, clock=clock)
    await node.start()
    async with node.open("s") as session:
        late = await Device(session, device="late").join(cursor)
        assert late.wire.received[0]["resume"] == resume
        assert (late.wire.received[0]["epoch"] == epoch) == (resume == "tail")
        await late.send("send", id="r3", text="three")
        stop = await late.send("cancel", id="k1", scope="session", upTo={"epoch": epoch, "seq": lost + 3})
        assert stop["runIds"] == []
        again = await Device(session, device="again").join()
        assert again.wire.received[0]["epoch"] == late.wire.received[0]["epoch"]
    await node.stop()


async def test_what_a_shared_store_lost_while_nobody_looked_is_announced() -> None:
    """A failover to an older replica with nobody there: the same epoch would name other events."""
    async with cluster(shared=True) as h:
        device = await h.device()
        await device.send("send", id="r1", text="one")
        (await h.puppet.call()).end()
        await device.wire.event("run.ended", runId="r1")
        saved = h.store.save()
        await device.send("send", id="r2", text="two")
        (await h.puppet.call(1)).end()
        await device.wire.event("run.ended", runId="r2")
        cursor, epoch = device.cursor(), device.reader.epoch
        device.leave()
        await h.release()
        await h.clock.pass_ms(40_000, 1_000)
        assert h.nodes[0].sessions == {}
        h.store.roll_back(saved, known=True)
        late = await Device(await h.session(), device="late").join(cursor)
        assert late.wire.received[0]["resume"] == "reset"
        assert late.wire.received[0]["epoch"] != epoch
        late.leave()
        await h.release()
        await h.clock.pass_ms(40_000, 1_000)
        again = await Device(await h.session(), device="again").join()
        assert again.wire.received[0]["epoch"] == late.wire.received[0]["epoch"], "once"
        again.leave()
