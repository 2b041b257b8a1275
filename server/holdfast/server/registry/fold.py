"""fold(state, record): what the log means. Changes the state in place; an illegal event changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from holdfast.protocol.events import EVENT_TYPES, UserMessage
from holdfast.protocol.messages import TEXT_KINDS
from holdfast.server.errors import IllegalEventError
from holdfast.server.registry.state import (
    Boundary,
    Record,
    RunState,
    SessionState,
    SteerState,
    SteerStatus,
    Terms,
)
from holdfast.server.registry.table import RunPhase, step

_NO_TERMS: Final[Terms] = {"alongside": False, "acceptedAt": 0}


def fold(state: SessionState, record: Record) -> None:
    """Takes the next entry of the log into the state.

    Raises IllegalEventError, and changes nothing, where the entry does not follow the state: a seq that is not the next
    one, or an event that the run's phase has no place for. An event of an unknown type is folded as its seq only.
    """
    event: Mapping[str, Any] = record.event
    transcript = state.transcript
    if event["seq"] != transcript.seq + 1:
        raise IllegalEventError(f"event {event['seq']} does not follow {transcript.seq}")
    kind: str = event["type"]
    if kind in EVENT_TYPES:
        run_id: str = event["runId"]
        run = state.runs.get(run_id)
        view = transcript.runs.get(run_id)
        open_requests = 0 if view is None else len(view.info["requests"])
        phase = step(RunPhase.UNKNOWN if run is None else run.phase, event, open_requests=open_requests)
        if run is None and phase is not RunPhase.UNKNOWN:
            run = state.runs[run_id] = RunState(run_id, phase, event["seq"], _NO_TERMS)
        if kind == "run.chunk":
            assert run is not None, "the table lets no chunk in before run.started"
            _chunk(state, run, event)
        else:
            transcript.apply(event)
            if run is not None:
                run.phase = phase
                _take_terms(run, record)
            _FOLDS[kind](state, run, event)
    else:
        transcript.apply(event)
    if record.note is not None and "memory" in record.note:
        state.remember(record.note["memory"])


def _take_terms(run: RunState, record: Record) -> None:
    if record.note is not None and "terms" in record.note:
        run.terms = record.note["terms"]


def _chunk(state: SessionState, run: RunState, event: Mapping[str, Any]) -> None:
    message = run.message
    assert message is not None, "an active run has a message"
    if "delta" in event and event["kind"] in TEXT_KINDS:
        number: int = event["part"]
        length = message.parts[number].length if number < len(message.parts) else 0
        run.boundaries.append(Boundary(event["seq"], number, length))
    state.transcript.apply(event)


def _message(state: SessionState, run: RunState | None, event: Mapping[str, Any]) -> None:
    state.last_message_id = event["message"]["id"]


def _queued(state: SessionState, run: RunState | None, event: Mapping[str, Any]) -> None:
    assert run is not None
    _identify(run, event)
    message: UserMessage = event["message"]
    run.queued_message = message
    state.queue.insert(event["position"] - 1, run.run_id)


def _started(state: SessionState, run: RunState | None, event: Mapping[str, Any]) -> None:
    assert run is not None
    if run.run_id in state.queue:
        state.queue.remove(run.run_id)
    _identify(run, event)
    run.queued_message = None
    run.node, run.attempt = event["node"], event["attempt"]
    run.message = state.transcript.runs[run.run_id].message
    if event["attempt"] == 1:
        state.last_message_id = event["messageId"]
    if not run.terms["alongside"]:
        state.main = run.run_id


def _identify(run: RunState, event: Mapping[str, Any]) -> None:
    run.agent, run.by, run.device = event["agent"], event["by"], event["device"]
    run.command = event.get("command", run.command)


def _resolved(state: SessionState, run: RunState | None, event: Mapping[str, Any]) -> None:
    assert run is not None
    run.resolved[event["requestId"]] = event["outcome"]


def _steer_accepted(state: SessionState, run: RunState | None, event: Mapping[str, Any]) -> None:
    state.steers[event["steerId"]] = SteerState(event["runId"], SteerStatus.PENDING, event.get("command"))


def _steer_applied(state: SessionState, run: RunState | None, event: Mapping[str, Any]) -> None:
    state.steers[event["steerId"]].status = SteerStatus.APPLIED


def _steer_withdrawn(state: SessionState, run: RunState | None, event: Mapping[str, Any]) -> None:
    state.steers[event["steerId"]].status = SteerStatus.WITHDRAWN


def _ended(state: SessionState, run: RunState | None, event: Mapping[str, Any]) -> None:
    assert run is not None
    run.reason, run.cause = event["reason"], event.get("cause")
    run.ended_seq, run.ended_at = event["seq"], event["at"]
    run.queued_message, run.message = None, None
    run.boundaries.clear()
    if run.run_id in state.queue:
        state.queue.remove(run.run_id)
    if state.main == run.run_id:
        state.main = None
    returned = {steer["steerId"] for steer in event["returned"]}
    for steer_id, steer in state.steers.items():
        if steer.run_id == run.run_id and steer.status is SteerStatus.PENDING:
            steer.status = SteerStatus.RETURNED if steer_id in returned else SteerStatus.SENT


def _nothing_more(state: SessionState, run: RunState | None, event: Mapping[str, Any]) -> None:
    """The transcript has folded all there is to this event."""


_FOLDS: Final[Mapping[str, Callable[[SessionState, RunState | None, Mapping[str, Any]], None]]] = {
    "message": _message,
    "run.queued": _queued,
    "run.started": _started,
    "run.requested": _nothing_more,
    "run.resolved": _resolved,
    "steer.accepted": _steer_accepted,
    "steer.applied": _steer_applied,
    "steer.withdrawn": _steer_withdrawn,
    "run.ended": _ended,
    "run.settled": _nothing_more,
}
