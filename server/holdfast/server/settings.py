"""The numbers a session server runs by, with their reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

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
