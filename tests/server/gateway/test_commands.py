"""Commands as they come in: what is refused, in which order, and that it costs nobody anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC
from holdfast.protocol.codec import COMMAND_ITEMS
from holdfast.server.settings import GatewaySettings
from holdfast.server.store import Append, Landed, MemoryStore, Outcome
from tests.support.served import CODECS, Gate, echo, served, until


def _json(**message: Any) -> str:
    return JSON_CODEC.encode(message).decode()


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ("{", {"code": "malformed"}),
        ("nonsense", {"code": "malformed"}),
        ("[]", {"code": "malformed", "path": "$"}),
        ('[{"type":"ping","id":"p"}]', {"code": "malformed", "path": "$"}),
        (b"{}", {"code": "malformed"}),
        ('{"type":"send","id":"r","text":1e999}', {"code": "malformed", "path": "$.text"}),
        ('{"type":"ping","id":"p","x":9007199254740992}', {"code": "malformed", "path": "$.x"}),
        ("[" * 100 + "]" * 100, {"code": "malformed"}),
        ('{"type":"ping","x":[' + "0," * COMMAND_ITEMS + "0]}", {"code": "malformed", "path": "$.x"}),
        ('{"id":"r"}', {"code": "invalid", "path": "$.type", "id": "r"}),
        ('{"type":["send"],"id":"r"}', {"code": "invalid", "path": "$.type", "id": "r"}),
        ('{"type":"dance","id":"r"}', {"code": "unknown_type", "path": "$.type", "id": "r"}),
        ('{"type":"send","text":"no id"}', {"code": "invalid", "path": "$.id"}),
        ('{"type":"send","id":".r","text":"x"}', {"code": "invalid", "path": "$.id"}),
        ('{"type":"send","id":"ä","text":"x"}', {"code": "invalid", "path": "$.id"}),
        ('{"type":"send","id":"r","runId":"a/b","text":"x"}', {"code": "invalid", "path": "$.runId", "id": "r"}),
        ('{"type":"send","id":"r","text":7}', {"code": "invalid", "path": "$.text", "id": "r"}),
        ('{"type":"send","id":"r","text":"x","later":1}', {"code": "invalid", "path": "$.later", "id": "r"}),
        ('{"type":"send","id":"r","parts":[{"kind":"text","text":0}]}', {"code": "invalid", "path": "$.parts[0].text"}),
        ('{"type":"cancel","id":"k"}', {"code": "invalid", "path": "$", "id": "k"}),
        ('{"type":"history","id":"h","limit":0}', {"code": "invalid", "path": "$.limit", "id": "h"}),
        ('{"type":"welcome","id":"w"}', {"code": "unknown_type", "id": "w"}),
    ],
)
async def test_bad_input(frame: str | bytes, expected: Mapping[str, Any]) -> None:
    """Each gets its error with its place, and the connection goes on as if it had not been sent."""
    async with served() as server, server.client(hello={}) as client:
        await client.raw(frame)
        error = await client.until("error")
        assert {**error, **expected} == error
        assert ("id" in error) == (
            "id" in expected or (error["code"] == "invalid" and error["path"].startswith("$.parts"))
        )
        assert error["retryable"] is False
        assert "Traceback" not in error["message"]
        assert (await client.ask("send", id="r", text="on we go"))["outcome"] == "started"


@pytest.mark.parametrize(
    "frame",
    [
        b"\xdd\xff\xff\xff\xff" * 8,
        b"\x81\xa1x" + b"\xdd\x00\xff\xff\xff" * 1_000,
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 60_000,
        msgpack.packb({"type": "send", "id": "r", "text": b"bin"}),
        msgpack.packb({"type": "ping", "id": "p", "x": msgpack.Timestamp(1)}),
        msgpack.packb({1: "ping"}, strict_types=True),
        msgpack.packb({"type": "ping", "id": "p"}) + b"\x00",
        '{"type":"ping","id":"p"}',
        b"",
    ],
    ids=range(10),
)
async def test_msgpack_bombs_and_wrong_types(frame: str | bytes) -> None:
    """A container bomb, bin, ext, keys that are no strings, trailing bytes and text frames are `malformed`."""
    async with served() as server, server.client(codec=MSGPACK_CODEC, hello={}) as client:
        await client.raw(frame)
        assert (await client.until("error"))["code"] == "malformed"
        assert (await client.ask("ping", id="p"))["outcome"] == "pong"


async def test_frames_that_are_too_large() -> None:
    """Up to twice the bound a frame gets `too_large`, counted in bytes and not in characters; beyond it 1009."""
    async with served(settings=GatewaySettings(frame_bytes=1_000)) as server, server.client(hello={}) as client:
        for frame in (_json(type="ping", id="x" * 1_000), _json(type="send", id="r", text="ä" * 500)):
            await client.raw(frame)
            error = await client.until("error")
            assert (error["code"], "id" in error) == ("too_large", False)
        assert (await client.ask("ping", id="p"))["outcome"] == "pong"
        await client.raw("x" * 2_001)
        assert await client.closed() == 1009
        async with server.client(hello={}) as other:
            assert other.received[0]["type"] == "welcome"


async def test_repeated_violations_close() -> None:
    """The twentieth bad frame within a minute closes for good; spread over time they do not."""
    async with served(settings=GatewaySettings(heartbeat_ms=10_000_000)) as server, server.client(hello={}) as client:
        for _ in range(3):
            for _ in range(19):
                await client.raw("{")
                await client.until("error")
            server.clock.advance(60_001)
            await client.send("pong")
        for _ in range(20):
            await client.raw("{")
        assert await client.closed() == 4503


async def test_too_many_commands() -> None:
    """Beyond the burst a command is told when to come again, and then it is taken; nothing else is lost."""
    settings = GatewaySettings(command_burst=5, commands_per_second=10)
    async with served(settings=settings) as server, server.client(hello={}) as client:
        for number in range(5):
            assert (await client.ask("ping", id=f"p{number}"))["type"] == "ack"
        error = await client.ask("send", id="r", text="later")
        assert (error["code"], error["retryable"], error["retryAfterMs"], error["id"]) == (
            "rate_limited",
            True,
            100,
            "r",
        )
        server.clock.advance(100)
        assert (await client.ask("send", id="r", text="later"))["outcome"] == "started"


async def test_the_pong_for_a_heartbeat_is_no_command() -> None:
    """It counts for no rate: a client that sends as fast as it may and sends pongs is never refused."""
    settings = GatewaySettings(command_burst=1, commands_per_second=1, heartbeat_ms=1000)
    async with served(settings=settings) as server, server.client(hello={}) as client:
        for number in range(6):
            server.clock.advance(1000)
            await client.until("ping")
            assert (await client.ask("ping", id=f"p{number}"))["type"] == "ack"
            await client.send("pong")


async def test_a_pong_that_nobody_asked_for_is_weighed() -> None:
    """Beyond the rate it is told so, like a command, and in the end its sender is sent away."""
    settings = GatewaySettings(command_burst=2, commands_per_second=1, refusals_per_minute=10)
    async with served(settings=settings) as server, server.client(hello={}) as client:
        for _ in range(13):
            await client.send("pong")
        assert await client.closed() == 4006
        errors = client.of_type("error")
        assert [(error["code"], "id" in error) for error in errors] == [("rate_limited", False)] * 9


async def test_a_client_that_does_not_slow_down() -> None:
    """One that goes on and on after it was told to wait is sent away, and may come back."""
    settings = GatewaySettings(command_burst=1, refusals_per_minute=50)
    async with served(settings=settings) as server, server.client(hello={}) as client:
        for number in range(51):
            await client.send("ping", id=f"p{number}")
        assert await client.closed() == 4006
        assert len(client.of_type("error")) == 49


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)
async def test_every_command_has_one_reply(codec: Any) -> None:
    """Each command has one reply, under its own id, in either encoding."""
    gate = Gate()
    async with served(gate.agent) as server, server.client(codec=codec, hello={}) as client:
        await client.send("send", id="r", text="go")
        await client.until("run.chunk")
        await client.send("steer", id="s", runId="r", text="faster", boundary="step")
        await client.send("withdraw", id="w", steerId="s")
        await client.send("answer", id="a", runId="r", requestId="q", value=None)
        await client.send("history", id="h", limit=1)
        await client.send("ping", id="p")
        await client.send("auth", id="t", token="any")
        await client.send("cancel", id="k", runId="r")
        await client.send("ping", id="last")
        await client.until("ack", id="last")
        replies = {m["id"]: m.get("outcome", m["type"]) for m in client.received if "id" in m}
        assert replies == {
            "r": "started",
            "s": "accepted",
            "w": "withdrawn",
            "a": "unknown_request",
            "h": "page",
            "p": "pong",
            "t": "refreshed",
            "k": "cancelled",
            "last": "pong",
        }
        assert len([m for m in client.received if "id" in m]) == len(replies)


async def test_an_ack_follows_its_events() -> None:
    """Everything up to an ack's seq is there before the ack, and a pong's head is what was sent."""
    async with served() as server, server.client(hello={}) as client:
        ack = await client.ask("send", id="r", text="hello")
        seqs = [message["seq"] for message in client.received if "." in message["type"] or message["type"] == "message"]
        assert seqs == list(range(1, ack["seq"] + 1))
        ended = await client.until("run.ended")
        assert (await client.ask("ping", id="p"))["head"] == ended["seq"]


async def test_pages_of_history() -> None:
    """`history` gives the messages before a seq, ascending, and says whether there are more."""
    async with served() as server, server.client(hello={}) as client:
        for number in range(3):
            await client.send("send", id=f"r{number}", text=f"message {number}")
            await client.until("run.ended", runId=f"r{number}")
        page = await client.ask("history", id="h1", limit=2)
        assert ([m["runId"] for m in page["messages"]], page["more"], page["last"]) == (["r2", "r2"], True, True)
        page = await client.ask("history", id="h2", before=page["messages"][0]["seq"], limit=4)
        assert ([m["runId"] for m in page["messages"]], page["more"]) == (["r0", "r0", "r1", "r1"], False)


class Slow(MemoryStore):
    """A store whose appends wait while `held`."""

    def __init__(self) -> None:
        super().__init__()
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.appends = 0
        self._waiting: set[asyncio.Task[None]] = set()

    @override
    def append_many(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # it may answer later
        self, requests: Sequence[Append], landed: Landed
    ) -> Sequence[Outcome] | None:
        self.appends += 1
        if self.open_gate.is_set():
            return super().append_many(requests, landed)

        async def later() -> None:
            await self.open_gate.wait()
            outcomes = self.append_many(requests, landed)
            assert outcomes is not None, "the gate is open"
            landed(requests, outcomes)

        task = asyncio.create_task(later())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return None


async def test_commands_in_flight_are_bounded() -> None:
    """A connection with too many commands without a reply is not read from; when they have theirs, all the rest is."""
    store = Slow()
    settings = GatewaySettings(commands_in_flight=4)
    async with served(store=store, settings=settings) as server, server.client(hello={}) as client:
        store.open_gate.clear()
        for number in range(12):
            await client.send("send", id=f"r{number}", text="x", whenBusy="alongside")
        session = server.node.sessions["s"]
        await until(lambda: store.appends > 0)
        async with server.client("another", hello={}) as other:
            assert (await other.ask("ping", id="p"))["outcome"] == "pong"  # what could be read has been read by now
        waiting = session._mailbox.commands  # pyright: ignore[reportPrivateUsage]
        assert waiting == 4
        store.open_gate.set()
        for number in range(12):
            await client.until("ack", id=f"r{number}")


async def test_a_lost_connection_is_no_cancel() -> None:
    """The run goes on when its sender is cut off, and is there when it comes back."""
    gate = Gate()
    async with served(gate.agent) as server:
        async with server.client(hello={}) as client:
            await client.send("send", id="r", text="go")
            await client.until("run.chunk")
            client.connection.transport.abort()
            await client.connection.wait_closed()
        await until(lambda: server.gateway.connections == 0)
        gate.opened.set()
        await until(lambda: not server.node.sessions["s"].workers)
        async with server.client(hello={}) as client:
            (message,) = [m for m in client.received[1]["messages"] if m["role"] == "assistant"]
            assert (message["status"], message["parts"][0]["text"]) == ("complete", "begun ended")


async def test_a_session_that_fails() -> None:
    """A defect in a session closes its connections so that they come back, and they find it working.

    What was asked before it has its reply, what was being read is given up, and the log says it once.
    """

    class Broken(Slow):
        broken = False

        @override
        def append_many(  # type: ignore[override]  # as the one above
            self, requests: Sequence[Append], landed: Landed
        ) -> Sequence[Outcome] | None:
            if self.broken and self.open_gate.is_set():
                return [ZeroDivisionError("a defect") for _ in requests]
            return super().append_many(requests, landed)

    store = Broken()
    async with served(echo, store=store) as server:
        async with server.client(hello={}) as client:
            store.broken = True
            store.open_gate.clear()
            await client.send("send", id="r0", text="x")
            await client.send("history", id="h")
            for number in range(1, 70):
                await client.send("send", id=f"r{number}", text="x")
            await until(lambda: server.node.sessions["s"].pending)
            with capture_logs() as logs:
                store.open_gate.set()
                assert await client.closed() == 4005
                await until(lambda: server.gateway.connections == 0)
            replies = {m.get("id"): m["code"] for m in client.of_type("error")}
            assert replies["r0"] == "unavailable"
            assert "Zero" not in str(client.received)
            assert [line["event"] for line in logs if line["log_level"] == "error"] == ["session failed"]
        store.broken = False
        async with server.client(hello={}) as client:
            assert (await client.ask("send", id="r0", text="x"))["outcome"] == "started"


@pytest.mark.parametrize(
    ("frame", "code"),
    [("{", "malformed"), ('{"type":"nope","id":"a"}', "unknown_type"), ('{"type":"history","id":""}', "invalid")],
)
async def test_every_kind_of_bad_frame_is_a_violation(frame: str, code: str) -> None:
    """What no correct client sends closes the connection for good when it is repeated, whatever is wrong with it."""
    async with served() as server, server.client(hello={}) as client:
        for _ in range(20):
            await client.raw(frame)
        assert await client.closed() == 4503
        assert {error["code"] for error in client.of_type("error")} == {code}
