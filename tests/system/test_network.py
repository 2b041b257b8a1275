"""A network that fails: what is read goes on without gap or doubling, and what was said while it was down arrives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from holdfast.client import Status, connect
from tests.support.plain_client import greeted
from tests.support.program import HOLDFAST, Serve, heard, outcome, started
from tests.support.proxy import Proxy
from tests.support.python_client import counted, ended, read, until


@pytest.fixture
async def network(demo: Serve) -> AsyncGenerator[Proxy]:
    """A way to the server that can fail."""
    async with Proxy(demo.port) as proxy:
        yield proxy


async def test_text_goes_on_over_cuts(demo: Serve, network: Proxy, session: str) -> None:
    """Connections cut again and again in the middle of a message: its reader gets every word once."""
    async with connect(network.url, session=session) as client:
        run = await client.send("count to 250")
        texts = aiter(run)
        said = ""
        for mark in (" 5 ", " 40 ", " 80 "):
            said += await read(texts, up_to=mark)
            network.cut()
        said += await read(texts)
        assert said == counted(250)
        assert (await ended(run)).text == counted(250)
        assert network.connections >= 3


async def test_a_stop_pressed_offline_arrives(demo: Serve, network: Proxy, session: str) -> None:
    """A cancel while there is no connection stops the run when there is one again, and keeps what had been read."""
    async with connect(network.url, session=session) as client, connect(demo.url, session=session) as other:
        run = await client.send("count to 10000")
        said = await read(aiter(run), up_to=" 5 ")
        network.refusing = True
        network.cut()
        await until(client, lambda: client.status is Status.OFFLINE)
        stop = asyncio.create_task(run.cancel())
        await until(other, lambda: " 50 " in other.run(run.id).text)  # nobody has heard of it yet
        assert not stop.done()
        network.heal()
        outcome = await stop
        assert outcome.outcome == "cancelled"
        assert (await ended(run)).text == said
        assert (await ended(other.run(run.id))).text == said


async def test_a_send_whose_reply_was_lost_is_one_run(demo: Serve, network: Proxy, session: str) -> None:
    """The server took the send, and its reply never came: the client sends it again, and there is one run."""
    async with connect(network.url, session=session) as client, connect(demo.url, session=session) as other:
        network.down = False
        sending = asyncio.create_task(client.send("count to 100", run_id="once"))
        await until(other, lambda: other.run("once").status == "running")
        assert not sending.done()
        network.heal()
        network.cut()
        run = await sending
        assert await read(aiter(run)) == counted(100)
        await until(client, lambda: client.status is Status.LIVE)
        assert list(other.runs) == list(client.runs) == ["once"]
        assert [message["role"] for message in other.messages] == ["user", "assistant"]


async def test_what_is_said_offline_arrives_in_order(demo: Serve, network: Proxy, session: str) -> None:
    """Sends and a steer given while there is no connection take effect once each, in the order given."""
    async with connect(network.url, session=session) as client:
        network.refusing = True
        network.cut()
        await until(client, lambda: client.status is Status.OFFLINE)
        said = [
            asyncio.create_task(client.send("count to 400", run_id="first")),
            asyncio.create_task(client.send("count to 3", run_id="second")),
        ]
        steer = asyncio.create_task(client.steer("count to 5", run_id="first"))
        network.heal()
        first, second = [await sending for sending in said]
        assert (await steer).outcome == "accepted"
        assert (await ended(first)).text.endswith(f"So: {counted(5)}")
        assert (await ended(second)).text == counted(3)
        assert list(client.runs) == ["first", "second"]


async def test_a_client_that_opens_before_its_network(demo: Serve, network: Proxy, session: str) -> None:
    """With `open_timeout=None` a session is usable before there is a connection."""
    network.refusing = True
    async with connect(network.url, session=session, open_timeout=None) as client:
        sending = asyncio.create_task(client.send("count to 3"))
        await until(client, lambda: client.trouble is not None)
        network.heal()
        assert (await ended(await sending)).text == counted(3)


async def test_silence_is_noticed_on_both_sides(tmp_path: Path) -> None:
    """A connection that is open and carries nothing: the client goes on over a new one, the server closes the old one
    with 4004, and the run knows nothing of it.
    """
    beat = {"HOLDFAST_HEARTBEAT_MS": "1000"}
    with Serve("--demo-words-per-second", "100", cwd=tmp_path, env=beat) as server:
        async with (
            Proxy(server.port) as network,
            connect(server.url, session="s", device="watcher") as watcher,
            connect(network.url, session="s", device="phone") as client,
        ):
            run = await client.send("count to 300")
            texts = aiter(run)
            said = await read(texts, up_to=" 5 ")
            await until(watcher, lambda: watcher.presence["total"] == 2)
            old = {entry["device"]: entry["connection"] for entry in watcher.presence["devices"]}["phone"]
            network.swallow()
            await until(watcher, lambda: watcher.position["seq"] > client.position["seq"] + 20)
            said += await read(texts)
            assert said == counted(300)
            assert network.connections == 2
            while True:
                line = json.loads(await asyncio.to_thread(server.log.until, old))
                if line["event"] == "connection closed":
                    break
            assert line["code"] == 4004


async def test_a_connection_that_sends_no_pong(tmp_path: Path) -> None:
    """A peer that reads and never answers a ping is closed with 4004; its session goes on."""
    with Serve(cwd=tmp_path, env={"HOLDFAST_HEARTBEAT_MS": "1000"}) as server:
        async with greeted(server.url, "s") as wire:
            assert await wire.closed() == 4004
            assert [message["type"] for message in wire.received].count("ping") == 2


async def test_a_person_is_told_of_a_lost_connection(demo: Serve, network: Proxy, session: str) -> None:
    """`send` says when the connection is lost and when it is back, and the message goes on behind it."""
    words = [HOLDFAST, "send", "count to 60", "--url", network.url, "--session", session]
    async with started(words) as process:
        await heard(process, "Counting: 1 ")
        network.refusing = True
        network.cut()
        assert process.stderr is not None
        async with asyncio.timeout(20):
            await process.stderr.readuntil(b"[connection lost; trying again]")
            network.heal()
            await process.stderr.readuntil(b"[back]")
        end = await outcome(process)
        assert end.code == 0
        assert " 60." in end.out
