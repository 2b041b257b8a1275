"""A client below WebSocket libraries: bytes out, in whatever pieces a test wants."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.served import PATIENCE_SECONDS, Served

TEXT, BINARY, CONT, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """One frame of a client, masked with zeros."""
    head = bytes([opcode | (0x80 if fin else 0)])
    if len(payload) < 126:
        return head + bytes([0x80 | len(payload)]) + bytes(4) + payload
    if len(payload) < 65_536:
        return head + b"\xfe" + struct.pack("!H", len(payload)) + bytes(4) + payload
    return head + b"\xff" + struct.pack("!Q", len(payload)) + bytes(4) + payload


def message(kind: str, **fields: Any) -> bytes:
    """One message in one frame."""
    return frame(TEXT, json.dumps({"type": kind, **fields}).encode())


def close(code: int = 1000) -> bytes:
    """A close frame."""
    return frame(CLOSE, struct.pack("!H", code))


class RawClient:
    """A TCP connection to a session, upgraded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def open(cls, server: Served, session: str = "s", *, live: bool = False) -> AsyncGenerator[RawClient, None]:
        """Connects, and is there when the server has agreed to speak WebSocket; `live` when hello was said as well."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.gateway.port)
        writer.write(
            f"GET /v1/sessions/{session} HTTP/1.1\r\nHost: {server.address}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            await reader.readuntil(b"\r\n\r\n")
        client = cls(reader, writer)
        try:
            if live:
                client.send(message("hello"))
                await client.until("caughtUp")
            yield client
        finally:
            await client.gone()

    def send(self, *frames: bytes) -> None:
        """Sends all of this in one piece."""
        self.writer.write(b"".join(frames))

    def end(self) -> None:
        """Says, below WebSocket, that nothing more comes."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Drops the connection without a word (RST)."""
        own: socket.socket = self.writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the server's next frame. Raises IncompleteReadError at the end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return head & 0xF, await self.reader.readexactly(length)

    async def until(self, kind: str, **fields: Any) -> Any:
        """The next message of a type, with these fields."""
        async with asyncio.timeout(3 * PATIENCE_SECONDS):  # however much else it is sent
            while True:
                opcode, payload = await self.frame()
                if opcode == TEXT:
                    value: Any = json.loads(payload)
                    if value["type"] == kind and all(value.get(name) == fields[name] for name in fields):
                        return value

    async def closed(self) -> int:
        """The code that the server closes with; waits for the end of the connection too."""
        code = 0
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == CLOSE:
                    (code,) = struct.unpack("!H", payload[:2])
        except (asyncio.IncompleteReadError, ConnectionError):
            return code

    async def gone(self) -> None:
        """Closes this side."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            """It was lost already."""
