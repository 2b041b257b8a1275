"""The deepest and longest that is accepted, on its way to every kind of reader; and what is refused as it comes in."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC, Codec
from holdfast.protocol.codec import COMMAND_VALUES
from holdfast.protocol.values import JSON, MESSAGE_BYTES, VALUE_DEPTH
from holdfast.server.agents.run import Run
from holdfast.server.settings import GatewaySettings
from tests.support.served import CODECS, echo, served


def deep(depth: int) -> JSON:
    """Objects and arrays inside each other."""
    value: JSON = 0
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


def deep_object(depth: int) -> dict[str, JSON]:
    """The same in an object."""
    return {"a": deep(depth - 1)}


def repeated(value: JSON, times: int) -> JSON:
    """An array of it."""
    return [value] * times


async def deepest(run: Run) -> None:
    """Uses every way in which an agent's own values reach a reader, and waits."""
    await run.tool_call("tool", deep(VALUE_DEPTH), call_id="c")
    await run.tool_result("c", output=deep(VALUE_DEPTH))
    await run.data("data", deep(VALUE_DEPTH))
    await run.usage(deep_object(VALUE_DEPTH))
    await run.ask("input", prompt="?", schema=deep(VALUE_DEPTH))


async def too_deep(run: Run) -> None:
    """One deeper."""
    await run.data("data", deep(VALUE_DEPTH + 1))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: str(codec.subprotocol))
async def test_the_deepest_value_is_readable_everywhere(codec: Codec) -> None:
    """What was accepted is within the wire's own depth in events, snapshots and pages, queued, active and ended."""
    async with served(deepest, echo) as server:
        metadata = deep_object(VALUE_DEPTH)
        async with server.client(codec=codec, hello={}) as live:
            await live.send("send", id="r1", text="x", metadata=metadata)
            request = (await live.until("run.requested"))["request"]
            await live.send("send", id="r2", text="x", metadata=metadata)
            await live.until("run.queued")
            async with server.client(codec=codec, hello={}) as late:
                snapshot = next(message for message in late.received if message["type"] == "snapshot")
                assert snapshot["runs"][0]["requests"] == [request]
                assert snapshot["runs"][1]["message"]["metadata"] == metadata
            answer = {"runId": "r1", "requestId": request["id"], "value": deep(VALUE_DEPTH)}
            assert (await live.ask("answer", id="a1", **answer))["outcome"] == "accepted"
            assert (await live.until("run.ended"))["usage"] == deep_object(VALUE_DEPTH)
            page = await live.ask("history", id="h")
            assert page["messages"][0]["metadata"] == metadata
            parts = page["messages"][1]["parts"]
            assert [part[name] for part, name in zip(parts, ("input", "output", "value"), strict=True)] == [
                deep(VALUE_DEPTH)
            ] * 3


async def test_deeper_is_refused_where_it_enters() -> None:
    """A client's value is `invalid` with its place, an agent's fails the agent alone."""
    async with served(too_deep) as server, server.client(hello={}) as client:
        error = await client.ask("send", id="r1", text="x", metadata=deep_object(VALUE_DEPTH + 1))
        assert (error["code"], error["path"]) == ("invalid", "$.metadata")
        assert (await client.ask("send", id="r2", text="x"))["outcome"] == "started"
        assert (await client.until("run.ended"))["reason"] == "failed"


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (JSON_CODEC, repeated(repeated(0, 1000), 500)),
        (MSGPACK_CODEC, repeated(repeated(0, 1000), 1000)),
        (MSGPACK_CODEC, repeated(repeated([], 1000), 900)),
        (JSON_CODEC, repeated(0, COMMAND_VALUES)),
    ],
    ids=["ints", "ints as msgpack", "empty arrays", "one container"],
)
async def test_many_values_in_few_bytes(codec: Codec, value: JSON) -> None:
    """A frame of more values than it may hold is `malformed`, and the connection goes on."""
    async with served() as server, server.client(codec=codec, hello={}) as client:
        await client.send("answer", id="a", runId="r", requestId="q", value=value)
        assert (await client.until("error"))["code"] == "malformed"
        assert (await client.ask("send", id="r1", text="x"))["outcome"] == "started"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "send", "id": "r", "text": "x", "k" * 1_000_000: 1},
        {"type": "send", "id": "r", "parts": [{"kind": "k" * 1_000_000}]},
        {"type": "send", "id": "r", "text": "x", "metadata": {"k" * 500_000: {"k" * 500_000: [2**60]}}},
    ],
    ids=["an unknown field", "a kind of part", "a number too large"],
)
async def test_an_error_is_short(message: dict[str, Any]) -> None:
    """Whatever the client wrote, the reply names it in a line and stays far below what a message may be."""
    settings = GatewaySettings(frame_bytes=2 * MESSAGE_BYTES)
    async with served(settings=settings) as server, server.client(codec=MSGPACK_CODEC, hello={}) as client:
        await client.raw(MSGPACK_CODEC.encode(message))
        error = await client.until("error")
        assert len(error["path"]) <= 256
        assert error["path"].startswith("$.")
        assert len(error["message"]) <= 500
