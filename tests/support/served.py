"""A real gateway over a real node and a memory store, with a clock turned by hand, and a client that hides nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from holdfast.protocol import JSON_CODEC, MSGPACK_CODEC, Codec
from holdfast.server.agents.agent import Agent, AgentFunction
from holdfast.server.agents.run import Run
from holdfast.server.gateway.auth import Authenticator
from holdfast.server.gateway.endpoint import Gateway
from holdfast.server.gateway.static import Files
from holdfast.server.node.node import Node
from holdfast.server.settings import GatewaySettings
from holdfast.server.store import MemoryStore, Store
from tests.support.doubles import FakeClock

PATIENCE_SECONDS = 10
"""A test that waits longer than this has failed."""


async def echo(run: Run) -> None:
    """Says what it was told."""
    await run.text("".join(str(part.get("text", "")) for part in run.messages[-1]["parts"]))


async def until(condition: Callable[[], bool]) -> None:
    """Lets everything else run until the condition holds; a test that waits for it too long fails."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for are the server's own insides, which tell nobody
            await asyncio.sleep(0)


@dataclass
class Gate:
    """An agent that speaks, and goes on only when the test opens the gate."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Event = field(default_factory=asyncio.Event)

    async def agent(self, run: Run) -> None:
        """Begins, waits, ends."""
        await run.text("begun ")
        self.running.set()
        await self.opened.wait()
        await run.text("ended")


@dataclass
class Served:
    """What a test holds of a server."""

    node: Node
    gateway: Gateway
    clock: FakeClock

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.gateway.port}"

    @asynccontextmanager
    async def client(
        self,
        session: str = "s",
        *,
        codec: Codec = JSON_CODEC,
        hello: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        origin: str | None = None,
        receive_buffer: int | None = None,
    ) -> AsyncGenerator[Client, None]:
        """A connection; with `hello` (its fields) it is live."""
        own: socket.socket | None = None
        if receive_buffer is not None:
            own = socket.socket()
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            own.connect(("127.0.0.1", self.gateway.port))
        async with connect(
            f"ws://{self.address}/v1/sessions/{session}",
            subprotocols=[Subprotocol(codec.subprotocol)],
            additional_headers=headers,
            origin=None if origin is None else Origin(origin),
            compression=None,
            ping_interval=None,
            close_timeout=1,
            max_size=None,
            proxy=None,
            sock=own,
        ) as connection:
            client = Client(connection, codec)
            if hello is not None:
                await client.send("hello", **hello)
                await client.until("caughtUp")
            yield client

    async def get(self, path: str, *headers: str) -> tuple[int, str]:
        """Status and body of a plain GET."""
        response = await self.request(path, *headers)
        return response.status, response.body.decode()

    async def request(self, path: str, *headers: str, method: str = "GET", host: str | None = "") -> HttpResponse:
        """The response to a request that names the server by its address, by another `host`, or not at all (None)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        named = [] if host is None else [f"Host: {host or self.address}"]
        writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *named, *headers, "", ""]).encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            response = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, body = response.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        return HttpResponse(int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, body)


@dataclass(frozen=True)
class HttpResponse:
    """What a plain request got; the headers by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """One WebSocket connection, message by message."""

    def __init__(self, connection: ClientConnection, codec: Codec) -> None:
        self.connection = connection
        self.codec = codec
        self.received: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """Sends a message."""
        payload = self.codec.encode({"type": kind, **fields})
        await self.connection.send(payload.decode() if self.codec.text else payload)

    async def raw(self, frame: str | bytes) -> None:
        """Sends a frame as it is."""
        await self.connection.send(frame)

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            value: Any = self.codec.decode(await self.connection.recv())
        self.received.append(value)
        return cast("dict[str, Any]", value)

    async def until(self, kind: str, wanted: Callable[[dict[str, Any]], bool] | None = None, **fields: Any) -> Any:
        """The next message of a type, with these fields; what comes before it is in `received`."""
        async with asyncio.timeout(PATIENCE_SECONDS * 3):  # however much else it is sent
            while True:
                message = await self.receive()
                if (
                    message["type"] == kind
                    and all(message.get(name) == value for name, value in fields.items())
                    and (wanted is None or wanted(message))
                ):
                    return message

    async def ask(self, kind: str, **fields: Any) -> Any:
        """Sends a command and returns its ack, error or first page."""
        await self.send(kind, **fields)
        async with asyncio.timeout(PATIENCE_SECONDS * 3):
            while True:
                message = await self.receive()
                if message["type"] in ("ack", "error", "page") and message.get("id") == fields.get("id"):
                    return message

    async def closed(self) -> int:
        """The code that the connection is closed with; what comes before is in `received`."""
        async with asyncio.timeout(PATIENCE_SECONDS * 3):
            while True:
                try:
                    await self.receive()
                except ConnectionClosed as closed:
                    return self._close_code(closed)

    def _close_code(self, closed: ConnectionClosed) -> int:
        assert closed.rcvd is not None, "the connection was cut, not closed"
        return int(closed.rcvd.code)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """All messages received of a type."""
        return [message for message in self.received if message["type"] == kind]


@asynccontextmanager
async def served(
    *agents: AgentFunction,
    settings: GatewaySettings | None = None,
    authenticator: Authenticator | None = None,
    store: Store | None = None,
    files: Files | None = None,
) -> AsyncGenerator[Served, None]:
    """A server on a free port of this machine; its first agent is `echo` where none is given."""
    clock = FakeClock()
    named = {f"agent-{number}": Agent(f"agent-{number}", function) for number, function in enumerate(agents or (echo,))}
    node = Node(store or MemoryStore(), named, clock=clock)
    gateway = Gateway(node, authenticator=authenticator, settings=settings, files=files)
    await node.start()
    await gateway.start("127.0.0.1", 0)
    try:
        yield Served(node, gateway, clock)
    finally:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await gateway.stop()
            stopping = asyncio.create_task(node.stop())
            while not stopping.done():
                clock.advance(100)
                await asyncio.sleep(0)
            await stopping
        assert not clock.waiting, f"timers are left behind: {clock.left}"


CODECS = (JSON_CODEC, MSGPACK_CODEC)
