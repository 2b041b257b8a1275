"""A WebSocket connection of the gateway: the library's, which hears out a client that leaves, and weighs what it sends.

The library parses all it was given in one go, answers pings by itself, and says nothing of pongs and fragments. Here it
is given a little at a time, and all of these are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import structlog
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidMessage
from websockets.frames import CLOSE, CONT, DATA_OPCODES, Frame
from websockets.protocol import CLOSED, OPEN, SEND_EOF, Event

from holdfast.protocol.close_codes import CloseCode
from holdfast.protocol.values import MESSAGE_BYTES
from holdfast.server.clock import Clock
from holdfast.server.gateway import http
from holdfast.server.gateway.rates import Meter

_REASON_BYTES: Final = 123
"""What a close frame has room for."""
_SLICE_BYTES: Final = 4096
"""So much is parsed in one go: 682 frames at most, some milliseconds of work."""
_TURN_FRAMES: Final = 64
"""After so many frames everybody else has a turn."""
_LAST_FRAMES: Final = 1_000
"""So many frames are parsed at most of what a lost connection left. More would be over any rate."""
WRITE_LIMIT: Final = 64 * 1024
"""Bytes that wait in the transport before a connection counts as congested."""
WAITING_BYTES: Final = 2 * MESSAGE_BYTES
"""Bytes that wait at most. Whoever waits for the reader never comes near it: a connection beyond it is closed."""
Transmit: TypeAlias = Callable[[bytes], object]
"""Writes whole frames, without waiting."""
_log = structlog.get_logger("holdfast.gateway")


class Socket(ServerConnection):
    """One connection, from its first byte on.

    What was read before this side began to close is handed out by `recv`, however the connection ends; what comes later
    is for nobody. Everything is weighed when it comes. Whoever sends control frames or fragments beyond the rate on and
    on is closed; of messages their receiver is told, by `waits`.

    Until `admitted` it is a stranger's: its first message may be `first_bytes` long, and nothing behind that is read.
    """

    # Beside the library's 27 attributes: more than 30 CPython 3.11 keeps in a hash table, slower and larger.
    __slots__ = (
        "_all_of_them",
        "_clock",
        "_close_written",
        "_first_words",
        "_follower",
        "_frames",
        "_greeted",
        "_held",
        "_listening",
        "_size",
        "_stranger",
        "_taken",
        "_unread_bytes",
        "left",
        "meter",
        "waits",
    )

    def __init__(
        self,
        *arguments: Any,
        clock: Clock,
        meter: Meter,
        first_bytes: int,
        all_of_them: set[Socket],
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self.meter = meter
        self.left: asyncio.Future[None] = self.loop.create_future()
        """Done when the client has said its last: it closes, or is lost."""
        self.waits: list[float] = []  # an empty deque takes 600 bytes, and most connections are idle
        """Of each message that `recv` has still to return, what the meter said: 0.0, or seconds."""
        self._clock = clock
        self._all_of_them = all_of_them
        self._taken = 0
        """Bytes that the kernel has taken while the reader lagged, and while it does those too that wait for it."""
        self._follower: Callable[[Transmit | None], None] | None = None
        self._close_written = False
        self._listening = True
        """Whether what is parsed was read before this side began to close."""
        self._held = b""
        """Read, but not parsed yet; meanwhile nothing more is read."""
        self._frames = 0
        self._size = 0
        """Of the fragments of a message that is not whole yet."""
        self._first_words = b""
        self._stranger = True
        self._greeted = False
        """Whether a whole message has come."""
        self._unread_bytes = 2 * first_bytes
        """So much more is read until one has: beyond `first_bytes` only to say so."""

    def admitted(self) -> None:
        """Whoever is there may be heard: reads what comes behind the first message."""
        self._stranger = False
        self._read_on()

    def follow(self, follower: Callable[[Transmit | None], None]) -> None:
        """Tells one follower, now and whenever it changes, how whole frames may be written past all that is kept here.

        None where they may not: the reader lags, or nothing can be written any more.
        """
        self._follower = follower
        self._tell()

    @property
    def code(self) -> int:
        """With which code the connection was closed, whoever began; 1006 where it was lost, 0 while it is open."""
        sent = self.protocol.close_sent
        return int((self.protocol.close_code or 0) if sent is None else sent.code)

    @property
    def waiting(self) -> int:
        """Bytes that wait for the reader."""
        return self.transport.get_write_buffer_size()

    @property
    def sent(self) -> int:
        """Bytes that the kernel has taken so far while the reader lagged, whoever wrote them."""
        return self._taken - self.waiting if self.paused else self._taken

    def write(self, frames: bytes) -> None:
        """Writes whole frames to an open connection, without waiting."""
        if self.paused:
            self._taken += len(frames)
        self.transport.write(frames)
        if self.paused:
            self._bound()

    def begin_close(self, code: int, reason: str) -> None:
        """Begins closing, without waiting: the close frame follows what was written before. Nothing else does."""
        if self.protocol.state is OPEN:
            self.protocol.send_close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
            self.send_data()

    def shut(self, code: int, reason: str) -> None:
        """Closes, where that has not begun, and hears nothing any more: the rest is thrown away as it comes."""
        self._listening = False
        self._held = b""
        if not self.protocol.eof_sent:
            self.protocol.fail(code, reason)
            self.send_data()
        if self.protocol.state is not CLOSED:
            self.transport.resume_reading()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport."""
        super().connection_made(transport)
        self.recv_messages.resume = self._read_on
        self._all_of_them.add(self)

    def data_received(self, data: bytes) -> None:
        """Takes what was read."""
        if self.protocol.eof_sent:
            return  # nothing that comes now means anything
        if self.protocol.close_sent is not None:
            self._listening = False
        if self._held:
            self._held += data
        else:
            self._parse(data)

    def pause_writing(self) -> None:
        """The reader lags: what waits for it is more than `WRITE_LIMIT`."""
        super().pause_writing()
        self._taken += self.waiting
        self._tell()

    def resume_writing(self) -> None:
        """The reader has taken so much that it does not lag any more."""
        self._taken -= self.waiting
        super().resume_writing()
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        """Takes the end. What was read counts, parsed or not."""
        held, self._held, self._frames = self._held, b"", 0
        for at in range(0, len(held), _SLICE_BYTES):
            if self._frames >= _LAST_FRAMES or self.protocol.eof_sent:
                break
            super().data_received(held[at : at + _SLICE_BYTES])
        super().connection_lost(exc)
        self._tell()
        self._follower = None
        self._leave()
        self._all_of_them.discard(self)

    # Called by the library

    def process_event(self, event: Event) -> None:
        """Takes a request or a frame."""
        if isinstance(event, Frame):
            self._frames += 1
            if event.opcode is CLOSE:
                self._leave()
            else:
                self._weigh(event)
            if not self._listening:
                return
        super().process_event(event)

    def send_data(self) -> None:
        """Sends what the library has to say. It says nothing to a request that is none: so that is said here."""
        if self.request is None and SEND_EOF in self.protocol.writes and not self.protocol.reader.eof:
            error = self.protocol.handshake_exc
            if isinstance(error, InvalidMessage):
                response = http.broken(self, self._first_words, error.__cause__)
                _log.debug("request not understood", status=response.status_code, reason=str(error.__cause__)[:200])
                self.transport.write(response.serialize())
        writes = self.protocol.writes
        if self._close_written:  # nobody needs a pong any more; what may follow is the end of the stream
            writes[:] = [data for data in writes if data == SEND_EOF]
        elif len(writes) > 1:  # the transport is given all of it at once, or it might begin to lag in the middle
            end = [SEND_EOF] if SEND_EOF in writes else []
            writes[:] = [b"".join(writes), *end]
        if self.paused:
            self._taken += sum(map(len, writes))
        self._tell()
        super().send_data()
        self._close_written = self.protocol.close_sent is not None
        self._bound()

    def _tell(self) -> None:
        # Whatever changes the protocol's state sends data at once, or is the end of the connection.
        if self._follower is not None:
            self._follower(None if self.paused or self.protocol.state is not OPEN else self.transport.write)

    def _bound(self) -> None:
        if self.protocol.state is OPEN and self.waiting > WAITING_BYTES:
            self.begin_close(CloseCode.TOO_SLOW, "this connection does not read")

    # Reading a little at a time

    def _parse(self, data: bytes) -> None:
        self._frames = 0
        if self.request is None and not self._first_words:
            self._first_words = data[:16]
        for at in range(0, len(data), _SLICE_BYTES):
            if self.protocol.eof_sent:
                return
            if self._frames >= _TURN_FRAMES or self._waits:
                self._held = data[at:]
                self.transport.pause_reading()
                if not self._waits:
                    self.loop.call_soon(self._parse_on)
                return
            piece = data[at : at + _SLICE_BYTES]
            super().data_received(piece)
            if not self._greeted and self.request is not None:
                self._unread_bytes -= len(piece)
                if self._unread_bytes < 0:
                    self.shut(CloseCode.TOO_BIG, "the first message is too long")

    def _read_on(self) -> None:
        """There is room for more messages."""
        if self._held:
            self.loop.call_soon(self._parse_on)  # and not at once: this is called by whoever takes a message
        elif self._may_read:
            self.transport.resume_reading()

    def _parse_on(self) -> None:
        if self._waits:
            return  # until there is room
        held, self._held = self._held, b""
        self._parse(held)
        if self._may_read:
            self.transport.resume_reading()

    @property
    def _waits(self) -> bool:
        """Whether nothing more is parsed until what has come was taken, or its sender admitted."""
        return self.recv_messages.paused or (self._stranger and self._greeted)

    @property
    def _may_read(self) -> bool:
        return not self._held and not self._waits and self.protocol.state is not CLOSED

    # What it sends

    def _weigh(self, frame: Frame) -> None:
        now, is_message = self._clock.monotonic(), False
        if self._listening and frame.opcode in DATA_OPCODES:
            self._size += len(frame.data)
            is_message = frame.fin
            self._greeted = self._greeted or is_message
        if is_message:
            self.waits.append(self.meter.message(self._size, now))
            self._size = 0
        if (frame.opcode is CONT or not is_message) and self.meter.frame(now):
            self.shut(CloseCode.RATE_LIMITED, "too many frames")

    def _leave(self) -> None:
        if not self.left.done():
            self.left.set_result(None)
