"""The numbers a server runs by, with their reasons: those of sessions, and those of connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from holdfast.protocol.codec import COMMAND_ITEMS, COMMAND_VALUES
from holdfast.protocol.control import Limits
from holdfast.protocol.values import EVENT_BYTES, MESSAGE_BYTES
from holdfast.server.registry import RunLimits

DRAIN_MS: Final = 5_000
"""How long runs may finish after the first signal; with the rest of a stop, within the ten seconds of a container."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Bounds and times of every session on a node. Times in milliseconds unless the name says otherwise."""

    grace_ms: int = 5_000
    """How long an agent that was stopped may take to stop before `run.settled` says that it could not be confirmed."""
    replay_window_ms: int = 600_000
    """How long raw events are kept after a checkpoint: a client that was away for longer gets a snapshot."""
    compact_after_ms: int = 1_000
    """After a run has closed: what ends in quick succession is archived in one step."""
    checkpoint_bytes: int = 1024 * 1024
    """Of the log behind a checkpoint, an event counted as 512 bytes at least: then the next one is written, also while
    runs go on, so that opening the session costs the same however long they have gone on.
    """
    history_messages: int = 200
    """How many messages before its own an agent sees at most."""
    history_bytes: int = 16 * 1024 * 1024
    """Of those messages, as they lie in the archive: older ones that do not fit are left out, never the last."""
    run_bytes: int = 16 * 1024 * 1024
    """Of one run's output; a run that produces more fails with `limit_reached`."""
    waiting_bytes: int = 256 * 1024
    waiting_chunks: int = 1_024
    """Of one run's output waiting for the store: beyond either its agent is held back."""
    recent_events: int = 4_096
    recent_bytes: int = 1024 * 1024
    """Events kept in memory for readers that are a little behind; older ones are read from the store."""
    catch_up_bytes: int = 128 * 1024
    """Written to a lagging reader at a time."""
    snapshot_beyond: int = 20_000
    """A reader that missed more events than this gets a snapshot instead."""
    unavailable_ms: int = 4_500
    """A command that waits longer than this for an unreachable store is told so."""
    contended_hold_ms: int = 25
    """How long chunks wait after another node lost a race for the session: its command gets its turn."""
    presence_every_ms: int = 1_000
    limits: RunLimits = field(default_factory=RunLimits)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Bounds and times of every connection."""

    frame_bytes: int = MESSAGE_BYTES
    """The largest command. A frame up to twice as large is refused by an error, one beyond by the close code 1009."""
    hello_bytes: int = 16 * 1024
    """The largest first message: whoever sends it is nobody yet. Up to twice as large it is refused by an error."""
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
    """Commands of one connection that wait for their reply; beyond it the server stops reading from it."""
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
            "commandValues": COMMAND_VALUES,
        }
