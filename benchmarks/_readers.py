"""The load: connections that read as cheaply as Python can, so that one core reads what another one writes.

A reader does its WebSocket handshake by hand and then counts marks in the bytes that come, without taking frames
apart: nothing else in the stream contains them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Self, cast

from benchmarks._pace import MARK, TEXT_LENGTH

REQUEST: Final = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n"
)


def masked(payload: bytes, *, text: bool = True) -> bytes:
    """A client's frame; its mask is zero, so the payload stands as it is."""
    opcode = 0x81 if text else 0x82
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else bytes([0x80 | 126, length >> 8, length & 0xFF])
    return bytes([opcode]) + size + b"\0\0\0\0" + payload


class Reader(asyncio.Protocol):
    """One connection. `delays` is filled with each chunk's seconds on its way while it is a list."""

    def __init__(self) -> None:
        self.chunks = 0
        self.delays: list[float] | None = None
        self.lost = False
        self._half = False
        """Whether the first byte of a mark was the last that came."""
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._awaited: tuple[bytes, asyncio.Future[bytes]] | None = None
        self._rest = b""

    @classmethod
    async def connect(cls, port: int, path: str, subprotocol: str | None) -> Self:
        """Opens a connection and does the handshake."""
        loop = asyncio.get_running_loop()
        _, reader = await loop.create_connection(cls, "127.0.0.1", port)
        more = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        answer = await reader.ask(REQUEST.format(path=path, more=more).encode(), b"\r\n\r\n")
        if b" 101 " not in answer:
            raise RuntimeError(f"the server refused the connection: {answer!r}")
        return reader

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Counts, and looks for what is awaited."""
        now = time.monotonic_ns()
        if self._awaited is not None:
            wanted, found = self._awaited
            start = max(0, len(self._received) - len(wanted))
            self._received += data
            if self._received.find(wanted, start) >= 0 and not found.done():
                found.set_result(bytes(self._received))
                self._awaited, self._received = None, bytearray()
            return
        self.chunks += data.count(MARK)
        if self._half and data.startswith(MARK[1:]):
            self.chunks += 1
        self._half = data.endswith(MARK[:1])
        if self.delays is not None:
            self._time(self.delays, self._rest + data, now)

    def _time(self, delays: list[float], data: bytes, now: int) -> None:
        at = data.find(MARK)
        while at >= 0 and at + TEXT_LENGTH <= len(data):
            self._rest = b""
            delays.append((now - int(data[at + len(MARK) : at + TEXT_LENGTH], 16)) / 1e9)
            at = data.find(MARK, at + TEXT_LENGTH)
        self._rest = data[at:] if at >= 0 else data[-1:]  # half a mark, perhaps

    def connection_lost(self, exc: Exception | None) -> None:
        """Remembers it."""
        self.lost = True
        if self._awaited is not None and not self._awaited[1].done():
            self._awaited[1].set_exception(exc or ConnectionError(f"closed: {bytes(self._received)!r}"))

    async def ask(self, data: bytes, until: bytes, *, seconds: float = 30) -> bytes:
        """Writes, and returns all that came up to and with what contains `until`."""
        assert self._transport is not None
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._awaited, self._received = (until, found), bytearray()
        self._transport.write(data)
        async with asyncio.timeout(seconds):
            return await found

    def write(self, data: bytes) -> None:
        """Writes whole frames."""
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        """Drops the connection, without a word."""
        if self._transport is not None:
            self._transport.abort()


def close_all(readers: Sequence[Reader]) -> None:
    """Drops all of them."""
    for reader in readers:
        reader.close()
