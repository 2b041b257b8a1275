"""What an agent hands over that is too large, or cannot be encoded, fails that agent's run and nobody else's."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC
from holdfast.protocol.values import JSON, MAX_INTEGER, MESSAGE_BYTES
from holdfast.server.agents.agent import Agent, AgentFunction
from holdfast.server.agents.run import Run
from holdfast.server.errors import AgentError, OutputTooLargeError
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled


async def _sent(h: Cluster, agent: AgentFunction) -> Device:
    h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
    device = await h.device()
    await device.send("send", id="r1", text="go")
    return device


async def _ended(h: Cluster, agent: AgentFunction) -> dict[str, Any]:
    return await (await _sent(h, agent)).wire.event("run.ended", runId="r1")


async def test_an_error_is_cleaned_and_bounded() -> None:
    """Its code and message are part of an event: what cannot be encoded in them is replaced, what is too long cut."""

    async def agent(_: Run) -> None:
        raise AgentError("bad\ud800" + "c" * 100, "no \udc00 " + "x" * 100_000)

    async with cluster() as h:
        error = (await _ended(h, agent))["error"]
        assert error == {"code": "bad\ufffd" + "c" * 60, "message": "no \ufffd " + "x" * 1995}
        assert not (await h.session()).failed


@pytest.mark.parametrize("expires_ms", [10**30, float("inf")])
async def test_a_request_that_hardly_ever_expires(expires_ms: Any) -> None:
    """An expiry beyond what an event holds is the largest that it does."""

    async def agent(run: Run) -> None:
        await run.ask("input", prompt="?", expires_ms=expires_ms)

    async with cluster() as h:
        device = await _sent(h, agent)
        request = (await device.wire.event("run.requested"))["request"]
        assert request["expiresAt"] == MAX_INTEGER
        answer = await device.send("answer", id="a1", runId="r1", requestId=request["id"], value=1)
        assert answer["outcome"] == "accepted"
        await device.wire.event("run.ended", reason="completed")


@pytest.mark.parametrize("expires_ms", [-5, -0.5])
async def test_a_request_that_has_expired_when_it_is_made(expires_ms: Any) -> None:
    """A time that has passed is now, in whole milliseconds; what is no number fails its agent."""
    outcomes: list[str] = []

    async def agent(run: Run) -> None:
        with pytest.raises((TypeError, ValueError)):
            await run.ask("input", prompt="?", expires_ms=cast("Any", float("nan")))
        outcomes.append((await run.ask("input", prompt="?", expires_ms=expires_ms)).outcome)

    async with cluster() as h:
        device = await _sent(h, agent)
        request = (await device.wire.event("run.requested"))["request"]
        assert request["expiresAt"] == h.clock.now()
        assert type(request["expiresAt"]) is int
        await h.clock.pass_ms(1_000)
        await device.wire.event("run.ended", reason="completed")
        assert outcomes == ["expired"]


async def test_the_usage_has_a_limit() -> None:
    """What would make it larger is refused and adds nothing; what was recorded before is in the run's end."""

    async def agent(run: Run) -> None:
        await run.usage({"inputTokens": 3, "model": "x" * 10_000})
        with pytest.raises(OutputTooLargeError):
            await run.usage({"outputTokens": 4, "more": "x" * 10_000})
        await run.usage({"model": "small"})

    async with cluster() as h:
        assert (await _ended(h, agent))["usage"] == {"inputTokens": 3, "model": "small"}


async def test_an_answer_has_a_limit_of_parts() -> None:
    """An agent that begins more than 2,048 fails; to go on in the last one is no new part."""

    async def agent(run: Run) -> None:
        for _ in range(1_024):
            await run.text("a")
            await run.reasoning("b")
        await run.reasoning("c")
        await run.text("d")

    async with cluster() as h:
        ended = await _ended(h, agent)
        assert (ended["reason"], ended["error"]["code"]) == ("failed", "limit_reached")
        assert {event["part"] for event in h.of("r1", "run.chunk")} == set(range(2_048))
        assert h.of("r1", "run.chunk")[-1]["delta"] == "bc"


async def test_the_end_of_a_stopped_answer_fits_into_an_event() -> None:
    """However many parts an answer has, what is kept of it can be told, with its usage and steers."""

    async def agent(run: Run) -> None:
        await run.usage({"more": "x" * 16_000})
        for _ in range(1_024):
            await run.text("a")
            await run.reasoning("b")
        await asyncio.Event().wait()

    async with cluster() as h:
        device = await _sent(h, agent)
        await device.wire.until(lambda message: message.get("part") == 2_047)
        for number in range(40):
            await device.send("steer", id=f"s{number}", text="x" * 4_000, boundary="step")
        last = await device.send("steer", id="last", text="y" * 4_000, boundary="step")
        assert last["code"] == "limit_reached"
        seen = device.cursor()
        assert seen is not None
        await device.send("cancel", id="k1", runId="r1", seen={"epoch": seen["epoch"], "seq": seen["seq"]})
        ended = h.of("r1", "run.ended")[0]
        assert len(ended["kept"]) == 2_048
        assert len(ended["returned"]) == 40
        assert len(JSON_CODEC.encode(ended)) < 256 * 1024


async def test_a_run_that_asks_for_much_fits_into_a_snapshot() -> None:
    """Of requests and steers so many are open that a snapshot's message holds them, in either encoding."""
    refused: list[AgentError] = []
    floats: list[JSON] = [0.5] * 14_000

    async def agent(run: Run) -> None:
        async def ask() -> None:
            try:
                await run.ask("approval", call_id="c", name="n", input=floats)
            except AgentError as error:
                refused.append(error)

        await asyncio.gather(*[ask() for _ in range(8)])

    async with cluster() as h:
        device = await _sent(h, agent)
        await device.wire.event("run.requested")
        await settled()
        assert [error.code for error in refused] == ["limit_reached"] * 4
        for number in range(40):
            await device.send("steer", id=f"s{number}", text="x" * 4_000, boundary="step")
        for codec in (JSON_CODEC, MSGPACK_CODEC):
            late = await Device(device.session, device="late", codec=codec).join()
            cut = [message for message in late.wire.received if message["type"] == "snapshot"]
            (run,) = [run for message in cut for run in message["runs"]]
            assert (len(run["requests"]), len(run["steers"])) == (4, 40)
            assert max(len(codec.encode(message)) for message in cut) <= MESSAGE_BYTES
            late.leave()
        await device.send("cancel", id="k1", runId="r1")


async def test_the_log_names_the_cause_of_an_error_by_its_type_only() -> None:
    """What another server answered may hold a key or somebody's words."""

    async def agent(_: Run) -> None:
        try:
            raise ConnectionError("401: the key is sk-1234")
        except ConnectionError as cause:
            raise AgentError("upstream", "The model did not answer.") from cause

    async with cluster() as h:
        with capture_logs() as logs:
            await _ended(h, agent)
            await settled()
        failed = next(entry for entry in logs if entry["event"] == "run failed")
        assert failed["cause"] == "ConnectionError"
        assert "sk-1234" not in str(logs)
