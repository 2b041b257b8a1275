"""Text of active runs: what most of a log consists of, numbered without a change of the state and taken in when it is
in the log.

A chunk of text that goes on in the open last part of its run means nothing but itself: it moves no phase, opens no
part and is told nobody. So it need not be folded to decide what comes behind it, and where it is not accepted there is
nothing to undo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from holdfast.protocol.messages import TEXT_KINDS
from holdfast.server.registry.state import Boundary, RunState, SessionState
from holdfast.server.registry.table import ACTIVE, TABLE
from holdfast.server.registry.work import Chunk, OwnedWork, Owner

_FIELDS: Final = len(Chunk.of(Owner("", "", 0), "text", {"delta": ""}).event)
"""Of a chunk that is nothing but text."""

assert {phase for phase, row in TABLE.items() if row.get("run.chunk") is phase} == ACTIVE, "text moves no phase"
assert not any("run.chunk" in row for phase, row in TABLE.items() if phase not in ACTIVE), "text is an active run's"


def open_text(state: SessionState, owner: Owner) -> int:
    """The number of the part in which text of the run goes on; -1 where there is none, or it is not this owner's."""
    run = state.runs.get(owner.run_id)
    if run is None or run.message is None or run.node != owner.node or run.attempt != owner.attempt:
        return -1
    parts = run.message.parts
    return len(parts) - 1 if parts and not parts[-1].done and parts[-1].kind in TEXT_KINDS else -1


def numbered(
    state: SessionState, said: Iterable[tuple[Owner, Sequence[OwnedWork]]], now: int
) -> list[dict[str, Any]] | None:
    """The events of what owners have said, where all of it goes on in the open parts; None where it does not.

    They are those that were brought, numbered where they stand; what `decide` is given then it numbers once more. The
    state stays as it is. `now` are milliseconds since the epoch.
    """
    transcript = state.transcript
    seq, at = transcript.seq, max(now, transcript.at)
    events: list[dict[str, Any]] = []
    for owner, works in said:
        number = open_text(state, owner)
        if number < 0:
            return None
        message = state.runs[owner.run_id].message
        assert message is not None, "it has an open part"
        kind = message.parts[number].kind
        for work in works:
            if type(work) is not Chunk or work.event["kind"] != kind or len(work.event) != _FIELDS:
                return None
            seq += 1
            event = work.event
            event["seq"], event["at"], event["part"] = seq, at, number
            events.append(event)
    return events


def take_in(state: SessionState, events: Iterable[Mapping[str, Any]]) -> None:
    """Folds events that `numbered` has made on this state, and that are in the log now."""
    runs, transcript = state.runs, state.transcript
    run: RunState | None = None
    for event in events:
        if run is None or run.run_id != event["runId"]:
            run = runs[event["runId"]]
        assert run.message is not None, "an active run has an message"
        number: int = event["part"]
        part = run.message.parts[number]
        run.boundaries.append(Boundary(event["seq"], number, part.length))
        part.add(event["delta"])
        transcript.seq = event["seq"]
        transcript.at = event["at"]
