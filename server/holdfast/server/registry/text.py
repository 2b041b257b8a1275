"""Text of active runs: what most of a log consists of, numbered without a change of the state and taken in when it is
in the log.

A chunk of text that goes on in the open last part of its run means nothing but itself: it moves no phase, opens no
part and is told nobody. So it need not be folded to decide what comes behind it, and where it is not accepted there is
nothing to undo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from holdfast.protocol.messages import TEXT_KINDS
from holdfast.server.registry.state import Boundary, SessionState
from holdfast.server.registry.table import ACTIVE, TABLE
from holdfast.server.registry.work import Chunk, OwnedWork, Owner

_FIELDS: Final = len(Chunk.of_text(Owner("", "", 0), "text", "").event)
"""Of a chunk that is nothing but text."""

assert {phase for phase, row in TABLE.items() if row.get("run.chunk") is phase} == ACTIVE, "text moves no phase"
assert not any("run.chunk" in row for phase, row in TABLE.items() if phase not in ACTIVE), "text is an active run's"


class Speaker(Protocol):
    """Who works on a run."""

    @property
    def owner(self) -> Owner:
        """As which attempt."""
        ...


class Said(Protocol):
    """A piece of what an owner has brought."""

    @property
    def work(self) -> OwnedWork:
        """What it is."""
        ...


def numbered(
    state: SessionState, said: Iterable[tuple[Speaker, Sequence[Said]]], now: int
) -> list[dict[str, Any]] | None:
    """The events of what owners have said, where all of it goes on in the open parts; None where it does not.

    They are those that were brought, numbered where they stand; what `decide` is given then it numbers once more. The
    state stays as it is. `now` are milliseconds since the epoch.
    """
    runs, transcript = state.runs, state.transcript
    seq, at = transcript.seq, transcript.at
    if now > at:
        at = now
    events: list[dict[str, Any]] = []
    for speaker, pieces in said:
        owner = speaker.owner
        run = runs.get(owner.run_id)
        if run is None or run.message is None or run.node != owner.node or run.attempt != owner.attempt:
            return None
        parts = run.message.parts
        if not parts or parts[-1].done or parts[-1].kind not in TEXT_KINDS:
            return None
        kind, number = parts[-1].kind, len(parts) - 1
        for piece in pieces:
            work = piece.work
            if type(work) is not Chunk or work.event["kind"] != kind or len(work.event) != _FIELDS:
                return None
            seq += 1
            event = work.event
            event["seq"], event["at"], event["part"] = seq, at, number
            events.append(event)
    return events


def take_in(state: SessionState, events: Sequence[Mapping[str, Any]]) -> None:
    """Folds events that `numbered` has made on this state, and that are in the log now."""
    runs = state.runs
    for event in events:
        run = runs[event["runId"]]
        assert run.message is not None, "an active run has a message"
        number: int = event["part"]
        part = run.message.parts[number]
        run.boundaries.append(Boundary(event["seq"], number, part.length))
        part.add(event["delta"])
    transcript, last = state.transcript, events[-1]
    transcript.seq, transcript.at = last["seq"], last["at"]
