"""A store reduced to values: one log with compare-and-append, its checkpoint and archive, leases and a clock.

Everything that is written passes through JSON, as in a real store. `lose` and `lapse` are what a store can do to its
writers; `accepted` remembers what it has since forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from holdfast.protocol.transcript import Transcript
from holdfast.server.registry import Compaction, Record, SessionState, fold, load
from tests.support.log_model import Place

FIRST_EPOCH: Final = "e1"


def through_json(value: Any) -> Any:
    """The value as a store gives it back."""
    return orjson.loads(orjson.dumps(value))


class Batch(NamedTuple):
    """What one append added."""

    batch_id: str
    epoch: str
    records: tuple[Record, ...]

    @property
    def last(self) -> int:
        """The seq of its last event."""
        seq: int = self.records[-1].event["seq"]
        return seq


class Head(NamedTuple):
    """Where the log ends, and by which append."""

    epoch: str
    seq: int
    batch_id: str


@dataclass
class MemoryLog:
    """The log of one session, and what stands beside it."""

    epoch: str = FIRST_EPOCH
    seq: int = 0
    batch_id: str = ""
    now: int = 1_000_000
    batches: list[Batch] = field(default_factory=list[Batch])
    """All that were accepted and not lost, trimmed ones too."""
    floor: int = 0
    """Events up to this seq cannot be read any more."""
    checkpoint: dict[str, Any] | None = None
    records: dict[str, Any] = field(default_factory=dict[str, Any])
    messages: dict[int, Any] = field(default_factory=dict[int, Any])
    """The message archive, by seq."""
    live: set[str] = field(default_factory=set[str])
    """Nodes with a lease."""
    absent_since_head: set[str] = field(default_factory=set[str])
    """Nodes that had no lease at some time since the log stands where it stands."""
    lost: set[Place] = field(default_factory=set[Place])
    """Events that were accepted and then lost."""
    opened: dict[str, int] = field(default_factory=dict[str, int])
    """The seq that each later epoch went on from."""

    @property
    def head(self) -> Head:
        """Where the log ends."""
        return Head(self.epoch, self.seq, self.batch_id)

    def append(self, expected: Head, batch_id: str, records: Sequence[Record]) -> bool:
        """Adds a batch, if the log stands where its writer believes; a batch repeated unchanged is added once."""
        if (self.epoch, self.batch_id) == (expected.epoch, batch_id):
            return True
        if self.head != expected:
            return False
        self.batches.append(
            Batch(batch_id, self.epoch, tuple(Record(*through_json(list(record))) for record in records))
        )
        self.batch_id, self.seq = batch_id, self.batches[-1].last
        self.absent_since_head = set()
        return True

    def new_epoch(self, expected: Head, epoch: str, seq: int) -> bool:
        """Opens an epoch that numbers on above `seq`, if nobody else was faster."""
        if self.head != expected:
            return False
        self.epoch, self.seq, self.batch_id = epoch, seq, ""
        self.opened[epoch] = seq
        return True

    def lose(self, count: int) -> None:
        """Forgets the last `count` batches, but none that a checkpoint stands on."""
        kept_seq = 0 if self.checkpoint is None else self.checkpoint["seq"]
        floor = max(kept_seq, self.opened.get(self.epoch, 0))
        for _ in range(count):
            if self.batches and self.batches[-1].epoch == self.epoch and self.batches[-1].last > floor:
                batch = self.batches.pop()
                self.lost |= {(batch.epoch, record.event["seq"]) for record in batch.records}
                self.seq = batch.records[0].event["seq"] - 1
                self.batch_id = self.batches[-1].batch_id if self.batches else ""
        self.now += 1000  # what is written again has another time

    def compact(self, epoch: str, compaction: Compaction) -> bool:
        """Takes a checkpoint over; a later one stays."""
        if epoch != self.epoch or compaction.seq > self.seq:
            return False
        self.records |= through_json(compaction.records)
        self.messages |= {message["seq"]: through_json(message) for message in compaction.messages}
        checkpoint = self.checkpoint
        if checkpoint is None or checkpoint["seq"] < compaction.seq:
            checkpoint = self.checkpoint = through_json(compaction.checkpoint)
        self.floor = max(self.floor, min(compaction.trim_to, checkpoint["seq"]))
        return True

    def load(self) -> SessionState:
        """The state of the log as a writer that knows nothing finds it."""
        state = SessionState(FIRST_EPOCH) if self.checkpoint is None else load(through_json(self.checkpoint))
        for batch in self.batches:
            self.go_over(state, batch.epoch)
            for record in batch.records:
                if record.event["seq"] > state.seq:
                    fold(state, record)
        self.go_over(state, self.epoch)
        return state

    def go_over(self, state: SessionState, epoch: str) -> None:
        """Takes the state into `epoch`, which numbers on somewhere above, if it is not there yet."""
        if state.epoch != epoch and self.opened.get(epoch, 0) >= state.seq:
            state.transcript.epoch, state.transcript.seq = epoch, self.opened[epoch]

    def holds(self, batch_id: str) -> bool:
        """Whether a batch is in the log."""
        return any(batch.batch_id == batch_id for batch in self.batches)

    def snapshot(self, state: SessionState, *, reset: bool) -> dict[str, Any]:
        """The whole session at the head of `state`, the archive's messages included."""
        messages = {message["id"]: message for message in self.messages.values()}
        messages |= {message["id"]: message for message in state.transcript.messages()}
        return {
            "type": "snapshot",
            "epoch": state.epoch,
            "seq": state.seq,
            "at": state.at,
            "reset": reset,
            "messages": through_json(sorted(messages.values(), key=lambda message: message["seq"])),
            "runs": through_json([run.snapshot() for run in state.transcript.runs.values()]),
            "more": False,
            "last": True,
        }

    def folded(self) -> Transcript:
        """The fold of every event that is in the log."""
        transcript = Transcript()
        for batch in self.batches:
            for record in batch.records:
                transcript.apply(record.event)
        return transcript
