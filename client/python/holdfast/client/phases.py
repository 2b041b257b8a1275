"""The phases of one connection, as a table: phase, then what a message of the server means, then the next phase.

A missing cell is lost contact: the client drops the connection and resumes from its cursor, it never guesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from typing import Final


class Status(StrEnum):
    """Where the client stands with its server."""

    CONNECTING = "connecting"
    CATCHING_UP = "catching up"
    LIVE = "live"
    OFFLINE = "offline"
    CLOSED = "closed"


class Phase(Enum):
    """Where one connection stands."""

    OFFLINE = auto()
    OPENING = auto()
    GREETING = auto()
    SNAPSHOT = auto()
    """Catching up, and the next thing about the log is a snapshot."""
    TAIL = auto()
    """Catching up, event by event."""
    LIVE = auto()
    RELOADING = auto()
    """Live, in the middle of a snapshot of several messages."""
    CLOSED = auto()


class Input(Enum):
    """What a server's message means to the phase."""

    TAIL = auto()
    RESET = auto()
    EVENT = auto()
    SNAPSHOT_PART = auto()
    SNAPSHOT_LAST = auto()
    CAUGHT_UP = auto()
    REFUSAL = auto()
    GOAWAY = auto()
    OTHER = auto()


TABLE: Final[Mapping[Phase, Mapping[Input, Phase]]] = {
    Phase.GREETING: {
        Input.TAIL: Phase.TAIL,
        Input.RESET: Phase.SNAPSHOT,
        Input.REFUSAL: Phase.GREETING,
        Input.GOAWAY: Phase.GREETING,
    },
    Phase.SNAPSHOT: {
        Input.SNAPSHOT_PART: Phase.SNAPSHOT,
        Input.SNAPSHOT_LAST: Phase.TAIL,
        Input.REFUSAL: Phase.SNAPSHOT,
        Input.GOAWAY: Phase.SNAPSHOT,
        Input.OTHER: Phase.SNAPSHOT,
    },
    Phase.TAIL: {
        Input.EVENT: Phase.TAIL,
        Input.SNAPSHOT_PART: Phase.SNAPSHOT,
        Input.SNAPSHOT_LAST: Phase.TAIL,
        Input.CAUGHT_UP: Phase.LIVE,
        Input.REFUSAL: Phase.TAIL,
        Input.GOAWAY: Phase.TAIL,
        Input.OTHER: Phase.TAIL,
    },
    Phase.LIVE: {
        Input.EVENT: Phase.LIVE,
        Input.SNAPSHOT_PART: Phase.RELOADING,
        Input.SNAPSHOT_LAST: Phase.LIVE,
        Input.CAUGHT_UP: Phase.LIVE,
        Input.REFUSAL: Phase.LIVE,
        Input.GOAWAY: Phase.LIVE,
        Input.OTHER: Phase.LIVE,
    },
    Phase.RELOADING: {
        Input.SNAPSHOT_PART: Phase.RELOADING,
        Input.SNAPSHOT_LAST: Phase.LIVE,
        Input.REFUSAL: Phase.RELOADING,
        Input.GOAWAY: Phase.RELOADING,
        Input.OTHER: Phase.RELOADING,
    },
}

STATUS: Final[Mapping[Phase, Status]] = {
    Phase.OFFLINE: Status.OFFLINE,
    Phase.OPENING: Status.CONNECTING,
    Phase.GREETING: Status.CONNECTING,
    Phase.SNAPSHOT: Status.CATCHING_UP,
    Phase.TAIL: Status.CATCHING_UP,
    Phase.LIVE: Status.LIVE,
    Phase.RELOADING: Status.LIVE,
    Phase.CLOSED: Status.CLOSED,
}
WELCOMED: Final = frozenset({Phase.SNAPSHOT, Phase.TAIL, Phase.LIVE, Phase.RELOADING})
"""The phases in which commands are sent."""
