"""What travels on a connection: a client's frames decoded, and the server's as a session's subscriber writes them.

The bytes of a server's frame are the same for every connection without compression, so a frame is built once for all
readers of an encoding and written straight to each transport: half the cost of sending through the library.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from websockets.protocol import OPEN

from holdfast.protocol.codec import COMMAND_ITEMS, COMMAND_VALUES, Codec
from holdfast.protocol.errors import CommandError, MalformedError
from holdfast.server.gateway.socket import Socket, Transmit

INTERNAL_ERROR: Final = 1011
"""The standard's code for a server that failed; clients come back after it."""
_TEXT: Final = 0x81
_BINARY: Final = 0x82
_SHORT: Final = 1024
"""Nearly all frames are shorter: their heads are at hand."""


def _head(opcode: int, length: int) -> bytes:
    if length < 126:
        return bytes((opcode, length))
    if length < 65_536:
        return bytes((opcode, 126, length >> 8, length & 0xFF))
    return bytes((opcode, 127)) + length.to_bytes(8, "big")


_TEXT_HEADS: Final = tuple(_head(_TEXT, length) for length in range(_SHORT))
_BINARY_HEADS: Final = tuple(_head(_BINARY, length) for length in range(_SHORT))


def frame(payload: bytes, *, text: bool) -> bytes:
    """One whole, unmasked frame with this payload."""
    length = len(payload)
    if length < _SHORT:
        return (_TEXT_HEADS if text else _BINARY_HEADS)[length] + payload
    return _head(_TEXT if text else _BINARY, length) + payload


def decoded(codec: Codec, received: str | bytes, limit: int) -> Mapping[str, Any]:
    """The message in a client's frame of at most `limit` bytes. Raises CommandError."""
    size = len(received)
    if isinstance(received, str) and not received.isascii():
        size = len(received.encode())
    if size > limit:
        raise CommandError("too_large", f"a frame has at most {limit} bytes")
    message = codec.decode(received, max_items=COMMAND_ITEMS, max_values=COMMAND_VALUES)
    if not isinstance(message, dict):
        raise MalformedError("a message is an object", path="$")
    return message


class SocketWire:
    """The wire of one open WebSocket connection.

    It never waits for its reader by itself and owns no timer: whoever watches over the connection looks at `sent` and
    at `congested`, and closes a wire that makes no progress. The end of the connection releases `drained`.
    """

    __slots__ = ("_socket", "codec", "started", "transmit")

    def __init__(self, socket: Socket, codec: Codec) -> None:
        self.codec = codec
        self.transmit: Transmit | None = None
        """The transport's own `write`, for whole frames; None where the reader lags or the connection is closed."""
        self.started: asyncio.Future[None] | None = None
        """Set when the first bytes are written, if somebody put it here to wait for them."""
        self._socket = socket
        socket.follow(self._follow)

    @property
    def congested(self) -> bool:
        """Whether the reader lags: more than `WRITE_LIMIT` waited, and not a quarter of it is the rest yet."""
        return self._socket.paused

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._socket.protocol.state is not OPEN

    @property
    def sent(self) -> int:
        """Bytes that the kernel has taken so far while the reader lagged: it grows while such a reader reads."""
        return self._socket.sent

    def frame(self, payload: bytes) -> bytes:
        """The bytes of a frame with this payload, the same for every wire of this codec."""
        return frame(payload, text=self.codec.text)

    def write(self, frames: bytes) -> None:
        """Writes whole frames, without waiting. Does nothing when the connection is closed."""
        socket = self._socket
        if socket.protocol.state is not OPEN:
            return
        socket.write(frames)
        if self.started is not None and not self.started.done():
            self.started.set_result(None)

    async def drained(self) -> None:
        """Returns when the wire is not congested or is closed; a reader that reads nothing is closed by its watcher."""
        while self._socket.paused and self._socket.protocol.state is OPEN:
            try:
                await self._socket.drain()
            except OSError:
                return  # lost meanwhile

    def close(self, code: int, reason: str) -> None:
        """Begins closing, without waiting: the close frame follows what was written before."""
        self._socket.begin_close(code, reason)

    def _follow(self, transmit: Transmit | None) -> None:
        self.transmit = transmit
