"""The commands that have no reply yet, in the order they were given.

They outlive connections: whatever is in here is sent again after every reconnect, with the same id and the same
bytes, until the server acknowledges or refuses it. The ids make that harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from holdfast.client.errors import OutboxFullError
from holdfast.protocol import Ack, HoldfastError, Message

MAX_COMMANDS: Final = 1_000
"""What the server remembers of commands at least; more could not be sent twice safely."""
MAX_BYTES: Final = 8 * 1024 * 1024
_QUESTIONS: Final = frozenset({"history", "auth", "ping"})
"""They change nothing, and only who asked can use the reply."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Messages older than a point, ascending; `more`: there are older ones still."""

    messages: list[Message]
    more: bool


Reply: TypeAlias = Ack | HistoryPage


@dataclass(frozen=True, slots=True)
class Settled:
    """What a command got back: its reply, or the error its caller gets."""

    command_id: str
    reply: Reply | None
    error: HoldfastError | None


@dataclass(slots=True)
class Entry:
    """One command and what has happened to it."""

    message: Mapping[str, Any]
    frame: bytes
    sent: bool = False
    """On the present connection."""
    held_until: float = 0.0
    """Not sent before this time: the server asked to be spared."""
    refusals: int = 0
    """How often it was refused with an error that goes away by waiting."""
    page: list[Message] = field(default_factory=list[Message])
    """What has come of the page that `history` asked for."""


class Outbox:
    """An ordered set of commands, bounded by count and bytes: a full one refuses new commands at once."""

    def __init__(self, *, max_commands: int = MAX_COMMANDS, max_bytes: int = MAX_BYTES) -> None:
        self._entries: dict[str, Entry] = {}
        self._bytes = 0
        self._max_commands = max_commands
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, message: Mapping[str, Any], frame: bytes) -> Entry:
        """Takes a command in. Raises OutboxFullError and changes nothing where the bounds are reached."""
        if len(self._entries) >= self._max_commands or self._bytes + len(frame) > self._max_bytes:
            raise OutboxFullError(
                "Too many commands wait for the server's reply; issue this one again when some have arrived."
            )
        entry = Entry(message, frame)
        self._entries[message["id"]] = entry
        self._bytes += len(frame)
        return entry

    def get(self, command_id: str) -> Entry | None:
        """The command of that id, if it still waits."""
        return self._entries.get(command_id)

    def commands(self) -> list[Mapping[str, Any]]:
        """Everything but questions, in order."""
        return [entry.message for entry in self._entries.values() if entry.message["type"] not in _QUESTIONS]

    def settle(self, command_id: str) -> Entry | None:
        """Takes a command out: its reply came. None where it is not in here (it came before)."""
        entry = self._entries.pop(command_id, None)
        if entry is not None:
            self._bytes -= len(entry.frame)
        return entry

    def clear(self) -> list[str]:
        """Takes everything out; the ids, in order."""
        ids = list(self._entries)
        self._entries.clear()
        self._bytes = 0
        return ids

    def disconnected(self) -> None:
        """The connection is gone: everything is to be sent again, and half a page is none."""
        for entry in self._entries.values():
            entry.sent = False
            entry.page = []

    def due(self, now: float) -> list[Entry]:
        """What is to be sent now, in order; the caller marks each `sent` or settles it."""
        return [entry for entry in self._entries.values() if not entry.sent and entry.held_until <= now]

    def next_due(self) -> float | None:
        """When the next command that is held back becomes due."""
        return min((entry.held_until for entry in self._entries.values() if not entry.sent), default=None)

    def starts_run(self, run_id: str) -> bool:
        """Whether a send of that run waits for its reply: the server may not know the run yet."""
        return any(
            entry.message["type"] == "send" and entry.message.get("runId", entry.message["id"]) == run_id
            for entry in self._entries.values()
        )
