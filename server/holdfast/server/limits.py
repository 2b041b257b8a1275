"""What one connection may ask of the server, and how much patience it gets."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from holdfast.protocol.codec import COMMAND_ITEMS
from holdfast.protocol.control import Limits
from holdfast.protocol.values import EVENT_BYTES, MESSAGE_BYTES


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Bounds and times of every connection."""

    frame_bytes: int = MESSAGE_BYTES
    """The largest command. A frame up to twice as large is refused by an error, one beyond by the close code 1009."""
    hello_seconds: float = 5.0
    """How long a connection may stay without saying who it is."""
    heartbeat_ms: int = 20_000
    missed_heartbeats: int = 2
    """So many heartbeats without any sign of the client, and it is taken for gone."""
    slow_seconds: float = 20.0
    """How long a reader may take nothing at all while something waits for it."""
    commands_per_second: float = 50.0
    command_burst: int = 100
    """How many commands a connection may send at once after a while of silence."""
    refusals_per_minute: int = 500
    """A client that goes on at this rate after it was told to slow down is sent away, to come back later."""
    violations_per_minute: int = 20
    """Frames that no correct client sends; the last of them closes the connection for good."""
    commands_in_flight: int = 64
    """Commands of one connection that wait for their answer; beyond it the server stops reading from it."""
    unavailable_seconds: float = 5.0
    """A client is told within this time that the store does not answer."""
    close_seconds: float = 5.0
    """How long a closing connection may take to end before it is cut."""
    drain_batch: int = 100
    """Connections that are closed together in a drain; a pause lies between two batches."""
    drain_pause_seconds: float = 0.1
    reconnect_spread_ms: int = 5_000
    """Clients that are sent away come back at random times within this span."""
    origins: tuple[str, ...] = ()
    """Browser origins that may connect besides the server's own. Clients without an origin, programs, always may."""

    page: bool = True
    """Whether the chat page is served. The browser client's modules are in any case."""

    def announced(self) -> Limits:
        """The bounds as `welcome` names them."""
        return {
            "frameBytes": self.frame_bytes,
            "eventBytes": EVENT_BYTES,
            "messageBytes": MESSAGE_BYTES,
            "commandItems": COMMAND_ITEMS,
        }


class TokenBucket:
    """Lets `burst` through at once and `per_second` in the long run. Owns no clock: seconds are passed in."""

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._since = now

    def take(self, now: float) -> float:
        """Takes one token and returns 0.0, or takes none and returns the seconds until there is one."""
        self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
        self._since = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self._per_second


class Strikes:
    """Counts what should not happen: `strike` is True for the one that makes `limit` within `seconds`."""

    __slots__ = ("_seconds", "_times")

    def __init__(self, limit: int, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque(maxlen=limit)

    def strike(self, now: float) -> bool:
        """Counts one at the time `now`, seconds that never go back."""
        self._times.append(now)
        return len(self._times) == self._times.maxlen and now - self._times[0] <= self._seconds
