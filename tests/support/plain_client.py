"""The protocol by hand: one plain WebSocket, and what came over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from holdfast.protocol import JSON_CODEC, Codec
from tests.support.program import SECONDS

Message = Mapping[str, Any]
CONTROL: Final = frozenset(
    {"welcome", "snapshot", "page", "caughtUp", "ack", "error", "ping", "goaway", "presence", "pong"}
)


class PlainClient:
    """One connection. `received` holds every message that was read from it, in order."""

    def __init__(self, socket: ClientConnection, codec: Codec) -> None:
        self.received: list[Message] = []
        self._socket = socket
        self._codec = codec

    @property
    def events(self) -> list[Message]:
        """The events among what was received."""
        return [message for message in self.received if message["type"] not in CONTROL]

    @property
    def close_code(self) -> int | None:
        """How it was closed; None while it is open."""
        return self._socket.close_code

    async def say(self, type_: str, **fields: Any) -> None:
        """Sends one message."""
        frame = self._codec.encode({"type": type_, **fields})
        await self._socket.send(frame, text=self._codec.text)

    async def until(self, wanted: Callable[[Message], bool]) -> Message:
        """Reads on to the next message that is wanted. Raises ConnectionClosed where there is none."""
        async with asyncio.timeout(SECONDS):
            while True:
                decoded = self._codec.decode(await self._socket.recv())
                messages = decoded if isinstance(decoded, list) else [decoded]
                found: Message | None = None
                for message in messages:
                    assert isinstance(message, dict)
                    self.received.append(message)
                    if found is None and wanted(message):
                        found = message
                if found is not None:
                    return found

    async def type(self, type_: str, **fields: Any) -> Message:
        """Reads on to the next message of this type with these fields."""
        return await self.until(
            lambda message: message["type"] == type_ and all(message.get(name) == fields[name] for name in fields)
        )

    async def command(self, type_: str, id: str, **fields: Any) -> Message:
        """Sends a command and reads on to its reply."""
        await self.say(type_, id=id, **fields)
        return await self.until(lambda message: message["type"] in ("ack", "error", "page") and message["id"] == id)

    async def closed(self) -> int:
        """Reads on to the end of the connection; its close code."""
        with suppress(ConnectionClosed):
            await self.until(lambda message: False)
        assert self.close_code is not None
        return self.close_code


@asynccontextmanager
async def dial(
    url: str, session: str, *, codec: Codec = JSON_CODEC, bare: bool = False, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[PlainClient]:
    """A WebSocket to a session, nothing said yet; `bare` offers no subprotocol."""
    async with connect(
        f"{url}/v1/sessions/{session}",
        subprotocols=None if bare else [Subprotocol(codec.subprotocol)],
        additional_headers=headers,
        proxy=None,
        max_size=None,
        close_timeout=1,
    ) as socket:
        yield PlainClient(socket, codec)


@asynccontextmanager
async def greeted(url: str, session: str, *, codec: Codec = JSON_CODEC, **hello: Any) -> AsyncGenerator[PlainClient]:
    """A connection that has said `hello` and has been told everything it missed."""
    async with dial(url, session, codec=codec) as wire:
        await wire.say("hello", **hello)
        await wire.type("caughtUp")
        yield wire
