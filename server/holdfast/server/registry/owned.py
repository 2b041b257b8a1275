"""Deciding what a run's owner brings: chunks, requests, steers taken, its end and its settling.

All of it counts only from the owner of the latest `run.started` while the run has no terminal: a node that was paused,
cut off, or superseded is refused, and adds nothing.
"""

from __future__ import annotations

from typing import assert_never, cast

from holdfast.protocol.events import Event
from holdfast.protocol.messages import TEXT_KINDS, OpenMessage
from holdfast.server.registry.draft import Draft
from holdfast.server.registry.fold import fold
from holdfast.server.registry.state import Record, RunState, SessionState
from holdfast.server.registry.table import RunPhase
from holdfast.server.registry.work import (
    Chunk,
    Context,
    Decision,
    Finish,
    OpenRequest,
    OwnedWork,
    Owner,
    RetractRequest,
    Settle,
    TakeSteers,
)


def decide_owned(state: SessionState, work: OwnedWork, context: Context) -> Decision:
    """What an owner's work adds; `refused`, and nothing, where it is no longer the owner."""
    if isinstance(work, Chunk):
        record = decide_chunk(state, work, context)
        return Decision(refused=True) if record is None else Decision([record])
    run = state.runs.get(work.owner.run_id)
    if run is None or not owns(run, work.owner):
        return Decision(refused=True)
    draft = Draft(state, context)
    if isinstance(work, Settle):
        if run.phase is not RunPhase.STOPPING:
            return Decision(refused=True)
        draft.emit(
            "run.settled",
            runId=run.run_id,
            stoppedAfterMs=work.stopped_after_ms,
            confirmed=work.confirmed,
            usage=work.usage,
        )
        return draft.decision
    if not run.active:
        return Decision(refused=True)
    match work:
        case OpenRequest():
            draft.emit("run.requested", runId=run.run_id, request=work.request)
        case RetractRequest():
            if any(item["id"] == work.request_id for item in state.transcript.runs[run.run_id].info["requests"]):
                draft.emit("run.resolved", runId=run.run_id, requestId=work.request_id, outcome="withdrawn")
        case TakeSteers():
            draft.apply_steers(run)
        case Finish():
            _finish(draft, run, work)
        case _ as unreachable:
            assert_never(unreachable)
    return draft.decision


def owns(run: RunState, owner: Owner) -> bool:
    """Whether the run's latest `run.started` is this owner's."""
    return (run.node, run.attempt) == (owner.node, owner.attempt)


def decide_chunk(state: SessionState, work: Chunk, context: Context) -> Record | None:
    """The record that a chunk adds, folded; None where it is refused. What `decide` does for a chunk, and no more.

    Nearly all work is chunks, so this road is kept short.
    """
    owner = work.owner
    run = state.runs.get(owner.run_id)
    if run is None or run.message is None or not run.active or not owns(run, owner):
        return None
    event, transcript = work.event, state.transcript
    event["part"] = part_number(run.message, event["kind"], event.get("callId"))
    event["seq"] = transcript.seq + 1
    event["at"] = context.now if context.now > transcript.at else transcript.at
    record = Record(cast("Event", event))
    fold(state, record)
    return record


def part_number(message: OpenMessage, kind: str, call_id: object) -> int:
    """Where a chunk belongs: text and reasoning go on in the last part, a call's arguments in its own part.

    Everything else, and whatever finds its part closed, begins a new one.
    """
    parts = message.parts
    if kind in TEXT_KINDS:
        if parts and parts[-1].kind == kind and not parts[-1].done:
            return len(parts) - 1
    elif kind == "tool_call":
        for number in range(len(parts) - 1, -1, -1):
            part = parts[number]
            if part.kind == kind and not part.done and part.fields.get("callId") == call_id:
                return number
    return len(parts)


def _finish(draft: Draft, run: RunState, work: Finish) -> None:
    if work.resume_on_steer and draft.state.pending_steers(run.run_id):
        draft.apply_steers(run)
        return
    draft.end(run, work.reason, error=work.error, usage=work.usage)
