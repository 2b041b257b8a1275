"""A server that does exactly what a test tells it: when to reply, what to repeat, when to drop the line.

It keeps a log (`append`), welcomes from it, and hands every command to the test through `command()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC, Codec, Transcript

LIMITS = {
    "frameBytes": 64 * 1024,
    "eventBytes": 64 * 1024,
    "messageBytes": 1024 * 1024,
    "commandItems": 1024,
    "commandValues": 8_192,
}


class FakeServer:
    """One session, at most one connection at a time, over a log that the test writes."""

    def __init__(self) -> None:
        self.epoch = "E1"
        self.log: list[dict[str, Any]] = []
        self.hellos: list[dict[str, Any]] = []
        self.kept_from = 1
        """Cursors below this seq are too old."""
        self.history: list[dict[str, Any]] = []
        self.heartbeat_ms = 60_000
        self.greet = True
        """Whether `hello` gets its welcome."""
        self.refuse: tuple[int, str] | None = None
        """Close code and reason instead of a welcome."""
        self.heard: list[str] = []
        """The types of all that arrived, and `goodbye` where the client closed the connection."""
        self.left = asyncio.Event()
        """A client has said goodbye."""
        self.connected = asyncio.Event()
        self._commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._connection: ServerConnection | None = None
        self._server: Server | None = None
        self.url = ""

    async def start(self) -> None:
        """Listens on a free port, the same one after a `stop`."""
        port = int(self.url.rpartition(":")[2] or 0)
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            port,
            subprotocols=[Subprotocol(codec.subprotocol) for codec in (JSON_CODEC, MSGPACK_CODEC)],
            compression=None,
            ping_interval=None,
        )
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Nobody listens any more, and the connection is cut."""
        self.drop()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def drop(self) -> None:
        """Cuts the connection without a goodbye."""
        self.connected.clear()
        if self._connection is not None:
            self._connection.transport.abort()

    def deafen(self) -> Callable[[], None]:
        """Hears nothing more on this connection, not even a goodbye, until what this gives is called."""
        assert self._connection is not None
        self._connection.transport.pause_reading()
        return self._connection.transport.resume_reading

    async def close(self, code: int, reason: str = "") -> None:
        """Closes the connection with a code."""
        self.connected.clear()
        assert self._connection is not None
        await self._connection.close(code, reason)

    async def command(self, kind: str | None = None) -> dict[str, Any]:
        """The next command (or `pong`) that arrived."""
        async with asyncio.timeout(5):
            command = await self._commands.get()
        assert kind is None or command["type"] == kind, command
        return command

    def silent(self) -> bool:
        """Whether no command has arrived that the test did not take."""
        return self._commands.empty()

    def event(self, type: str, **fields: Any) -> dict[str, Any]:
        """The next event of the log; it is in the log now, and not sent."""
        seq = len(self.log) + 1
        event = {"type": type, "seq": seq, "at": 1_000 + seq, **fields}
        self.log.append(event)
        return event

    async def append(self, type: str, **fields: Any) -> dict[str, Any]:
        """Adds an event to the log and sends it to who is connected."""
        event = self.event(type, **fields)
        if self.connected.is_set():
            await self.say(event)
        return event

    async def say(self, message: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Sends a frame."""
        connection = self._connection
        assert connection is not None
        codec = _codec(connection)
        await connection.send(codec.encode(cast("dict[str, Any]", message)), text=codec.text)

    async def ack(self, command: dict[str, Any], outcome: str, **fields: Any) -> None:
        """Acknowledges a command."""
        await self.say({"type": "ack", "id": command["id"], "outcome": outcome, **fields})

    async def start_run(self, run_id: str, text: str = "hi") -> None:
        """A message and the start of its run."""
        message_id = f"m-{run_id}"
        after = None
        message = {
            "id": message_id,
            "role": "user",
            "parts": [{"kind": "text", "text": text}],
            "by": "ana",
            "device": "tab",
            "at": 1,
        }
        await self.append("message", message=message, runId=run_id, after=after)
        await self.append(
            "run.started",
            runId=run_id,
            agent="demo",
            by="ana",
            device="tab",
            messageId=f"a-{run_id}",
            after=message_id,
            attempt=1,
            node="n1",
        )

    async def text(self, run_id: str, delta: str, part: int = 0) -> dict[str, Any]:
        """A text chunk."""
        return await self.append("run.chunk", runId=run_id, part=part, kind="text", delta=delta)

    async def end_run(self, run_id: str, reason: str = "completed", **fields: Any) -> dict[str, Any]:
        """The terminal event."""
        return await self.append("run.ended", runId=run_id, reason=reason, returned=[], **fields)

    def snapshot(self, *, reset: bool = False) -> dict[str, Any]:
        """The session at the head of the log."""
        transcript = Transcript()
        transcript.epoch = self.epoch
        for event in self.log:
            transcript.apply(event)
        return {
            "type": "snapshot",
            "epoch": self.epoch,
            "seq": len(self.log),
            "at": transcript.at,
            "reset": reset,
            "messages": transcript.messages(),
            "runs": [run.snapshot() for run in transcript.runs.values()],
            "more": bool(self.history),
            "last": True,
        }

    async def _serve(self, connection: ServerConnection) -> None:
        self._connection = connection
        codec = _codec(connection)
        try:
            hello = codec.decode(await connection.recv())
            assert isinstance(hello, dict)
            self.hellos.append(hello)
            if self.refuse is not None:
                await connection.close(*self.refuse)
                return
            if self.greet:
                await self._welcome(hello)
                self.connected.set()
            async for frame in connection:
                command = codec.decode(frame)
                assert isinstance(command, dict)
                self.heard.append(str(command["type"]))
                self._commands.put_nowait(command)
            self.heard.append("goodbye")
            self.left.set()
        except ConnectionClosed:
            pass

    async def _welcome(self, hello: dict[str, Any]) -> None:
        cursor = hello.get("cursor")
        usable = (
            cursor is not None
            and cursor["epoch"] == self.epoch
            and self.kept_from - 1 <= cursor["seq"] <= len(self.log)
        )
        resume = "snapshot" if cursor is None else "tail" if usable else "reset"
        await self.say(
            {
                "type": "welcome",
                "session": "trip",
                "connection": f"c-{len(self.hellos)}",
                "principal": "ana",
                "device": hello["device"],
                "at": 1,
                "epoch": self.epoch,
                "head": len(self.log),
                "resume": resume,
                "heartbeatMs": self.heartbeat_ms,
                "features": [],
                "limits": LIMITS,
            }
        )
        if usable and cursor is not None:
            for event in self.log[cursor["seq"] :]:
                await self.say(event)
        else:
            await self.say(self.snapshot(reset=resume == "reset"))
        await self.say({"type": "caughtUp", "seq": len(self.log), "at": 1})


def _codec(connection: ServerConnection) -> Codec:
    return MSGPACK_CODEC if connection.subprotocol == MSGPACK_CODEC.subprotocol else JSON_CODEC
