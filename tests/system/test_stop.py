"""Stop means stop: a cancel's acknowledgement is the end of the run, for everybody."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Generator
from contextlib import AsyncExitStack

import pytest

from holdfast.client import connect
from holdfast.client.client import Encoding
from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC
from tests.support.plain_client import CONTROL, Message, PlainClient, greeted
from tests.support.program import Serve
from tests.support.python_client import counted, ended, read, until


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    """A server whose demo agent speaks as fast as it can be read."""
    with Serve("--demo-words-per-second", "5000", cwd=tmp_path_factory.mktemp("fast")) as server:
        yield server


def told(events: list[Message], run_id: str) -> list[str]:
    """The types of a run's events, its chunks as one."""
    types = [event["type"] for event in events if event.get("runId") == run_id and event["type"] not in CONTROL]
    return [type_ for type_, _ in itertools.groupby(types)]


def said(events: list[Message], run_id: str) -> str:
    """The run's text."""
    return "".join(event.get("delta", "") for event in events if event.get("runId") == run_id)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_a_cancel_that_is_left_at_once_stops_the_run(fast: Serve, session: str, encoding: Encoding) -> None:
    """A client that leaves right after a cancel, awaited by nobody, has stopped the run."""
    for number in range(5):
        run_id = f"{encoding}{number}"
        async with connect(fast.url, session=session, encoding=encoding) as client:
            await client.send("count to 10000", run_id=run_id)
            client.cancel(run_id)
        async with connect(fast.url, session=session) as client:
            assert client.run(run_id).reason == "cancelled"


async def test_nothing_of_the_run_follows_the_acknowledgement(fast: Serve, session: str) -> None:
    """After a cancel's ack no chunk of the run reaches anybody, on two devices that speak JSON and msgpack each."""
    async with AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(greeted(fast.url, session, codec=codec, device=device))
            for device in ("phone", "laptop")
            for codec in (JSON_CODEC, MSGPACK_CODEC)
        ]
        for number in range(20):
            run_id = f"r{number}"
            sender, stopper = wires[number % 4], wires[(number + 1) % 4]
            await sender.say("send", id=run_id, text="count to 10000")
            for _ in range(number):
                await stopper.type("run.chunk", runId=run_id)
            ack = await stopper.command("cancel", f"k{number}", runId=run_id, ifUnknown="prevent")
            assert ack["outcome"] == "cancelled"
            acknowledged = len(stopper.received)
            assert any(event.get("seq") == ack["seq"] for event in stopper.events), "the ack comes after its events"
            await asyncio.gather(*(_fence(wire, f"f{number}-{place}") for place, wire in enumerate(wires)))
            assert told(stopper.received[acknowledged:], run_id) in ([], ["run.settled"])
        for run_id in (f"r{number}" for number in range(20)):
            for wire in wires:
                types = told(wire.events, run_id)
                assert types[types.index("run.ended") + 1 :] in ([], ["run.settled"])
            assert len({said(wire.events, run_id) for wire in wires}) == 1
        assert said(wires[0].events, "r19").startswith("Counting: 1 2 ")


async def _fence(wire: PlainClient, id: str) -> None:
    """Reads everything that the server has committed by now."""
    await wire.command("ping", id)


async def test_a_stop_that_overtakes_its_send(fast: Serve, session: str) -> None:
    """A cancel that arrives before the send prevents the run: it never starts, and the send is told so."""
    async with greeted(fast.url, session) as first, greeted(fast.url, session) as second:
        stopped = await first.command("cancel", "k1", runId="r1", ifUnknown="prevent")
        assert stopped["outcome"] == "cancelled"
        sent = await second.command("send", "r1", text="count to 100")
        assert (sent["outcome"], sent["reason"]) == ("ended", "cancelled")
        assert [event["type"] for event in second.events if event.get("runId") == "r1"] == ["run.ended"]


async def test_everybody_may_press_stop_at_once(demo: Serve, session: str) -> None:
    """Many cancels of one run from several devices: one end, and every device is told it politely."""
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(connect(demo.url, session=session)) for _ in range(4)]
        run = await devices[0].send("count to 10000")
        for device in devices:
            await until(device, lambda device=device: device.run(run.id).text != "")  # type: ignore[misc]
        outcomes = await asyncio.gather(*(device.cancel(run.id) for device in devices for _ in range(3)))
        assert sorted(outcome.outcome for outcome in outcomes) == ["already_ended"] * 11 + ["cancelled"]
        assert {outcome.seq for outcome in outcomes} == {outcomes[0].seq}
        results = [await ended(device.run(run.id)) for device in devices]
        assert len({result.text for result in results}) == 1


async def test_what_was_on_screen_is_what_is_kept(demo: Serve, session: str) -> None:
    """A cancel with the reader's position cuts the message there, for every device and for the history."""
    async with connect(demo.url, session=session) as here, connect(demo.url, session=session) as there:
        run = await here.send("count to 10000")
        texts = aiter(run)
        seen = await read(texts, up_to=" 5 ")
        await until(there, lambda: " 20 " in there.run(run.id).text)  # the log is far ahead of the screen
        outcome = await run.cancel()
        assert outcome.outcome == "cancelled"
        kept = (await ended(run)).text
        assert kept == seen
        assert (await ended(there.run(run.id))).text == kept
        page = await there.history()
        assert page.messages[-1]["parts"][0].get("text") == kept


async def test_stopping_an_ended_run_is_polite(demo: Serve, session: str) -> None:
    """A cancel of a run that has completed says so and changes nothing."""
    async with connect(demo.url, session=session) as client:
        run = await client.send("count to 3")
        assert (await ended(run)).text == counted(3)
        outcome = await run.cancel()
        assert (outcome.outcome, outcome.reason) == ("already_ended", "completed")
        assert (await ended(run)).text == counted(3)
        assert (await client.cancel("never-heard-of")).outcome == "unknown_run"
