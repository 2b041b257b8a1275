"""One connection's place in the log: a cursor, a wire, and what happens when the wire is slow.

A subscriber is *live* while its wire takes what it is given: events are written straight to it. When the wire is
congested it falls behind: single events pass it by, control messages wait, and a catch-up brings it the missed range
in pieces, as fast as it reads. Joining is the same thing: a subscriber that begins behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from holdfast.protocol.close_codes import CloseCode
from holdfast.protocol.codec import Codec

WAITING_CONTROLS: Final = 256
WAITING_CONTROL_BYTES: Final = 256 * 1024
"""Control messages that may wait for a catch-up; a connection with more of either is closed as too slow."""


class Wire(Protocol):
    """What a subscriber writes to. The gateway's is a WebSocket connection, a test's a list."""

    @property
    def codec(self) -> Codec:
        """How messages are encoded."""
        ...

    @property
    def transmit(self) -> Callable[[bytes], object] | None:
        """Writes whole frames while the wire takes them at once; None where they would wait, or it is closed."""
        ...

    def frame(self, payload: bytes) -> bytes:
        """The bytes of a frame with this payload, the same for every wire of this codec."""
        ...

    def write(self, frames: bytes) -> None:
        """Writes whole frames, without waiting. Does nothing when the connection is closed."""
        ...

    async def drained(self) -> None:
        """Returns when the wire is not congested or is closed. Raises TimeoutError for a reader that reads nothing."""
        ...

    def close(self, code: CloseCode, reason: str) -> None:
        """Begins closing, without waiting."""
        ...

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        ...


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection's cursor. Only the session's actor moves it."""

    connection: str
    principal: str
    device: str
    since: int
    """When it joined, ms since the epoch."""
    wire: Wire
    messages: int
    """How many transcript messages a snapshot for it holds at most."""
    seq: int = 0
    """Everything up to here has been written."""
    behind: bool = True
    snapshot: bool = False
    """What it needs next is a snapshot."""
    reset: bool = False
    """And that snapshot announces a new epoch."""
    joining: bool = True
    """It has not been told yet that it has caught up."""
    waiting: list[bytes] = field(default_factory=list[bytes])
    """Control messages that wait for the catch-up, as frames."""
    waiting_bytes: int = 0
    presence: bytes = b""
    """The newest presence that waits for the catch-up, as a frame: it replaces the ones before."""
    _until_live: asyncio.Future[None] | None = field(default=None, init=False)

    async def live(self) -> None:
        """Returns when it has caught up. For one caller at a time, who gives up himself when the wire is closed."""
        if self.behind:
            self._until_live = asyncio.get_running_loop().create_future()
            await self._until_live

    def control(self, message: Mapping[str, Any]) -> None:
        """Sends a control message, after all events that were committed before it.

        An error overtakes them: whoever waits for the store is told so while the catch-up waits for it too.
        """
        frame = self._frame(message)
        if not self.behind or message["type"] == "error":
            self.wire.write(frame)
            return
        if message["type"] == "presence":
            self.presence = frame
            return
        self.waiting.append(frame)
        self.waiting_bytes += len(frame)
        if len(self.waiting) > WAITING_CONTROLS or self.waiting_bytes > WAITING_CONTROL_BYTES:
            self._forget_waiting()
            self.wire.close(CloseCode.TOO_SLOW, "too many replies wait for this connection")

    def write(self, message: Mapping[str, Any]) -> None:
        """Writes a message at once, whatever the subscriber's place."""
        self.wire.write(self._frame(message))

    def _frame(self, message: Mapping[str, Any]) -> bytes:
        return self.wire.frame(self.wire.codec.encode(message))

    def caught_up(self, at: int) -> None:
        """It has everything up to the head, an event of the time `at`: it goes live, and what waited is sent."""
        self.behind = False
        if self.joining:
            self.joining = False
            self.write({"type": "caughtUp", "seq": self.seq, "at": at})
        if self.waiting or self.presence:
            self.wire.write(b"".join([*self.waiting, self.presence]))
            self._forget_waiting()
        if self._until_live is not None and not self._until_live.done():
            self._until_live.set_result(None)

    def _forget_waiting(self) -> None:
        self.waiting, self.waiting_bytes, self.presence = [], 0, b""
