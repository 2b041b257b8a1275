"""Taking what has ended out of a state: checkpoints, and what goes to the archive.

A checkpoint is the state without its closed runs; their messages, and records under the keys of `lookups.py`, go to
the archive in the same step. So opening a session costs its recent past, and an id of long ago is still known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.protocol.events import Message
from holdfast.protocol.messages import OpenMessage, OpenPart
from holdfast.protocol.transcript import Run as RunView
from holdfast.server.registry.lookups import command_key, message_key, run_key, steer_key
from holdfast.server.registry.state import (
    BOUNDARIES_KEPT,
    Boundary,
    RunState,
    SessionState,
    SteerState,
    SteerStatus,
)
from holdfast.server.registry.table import Phase

_MARKS_KEPT: Final = 64
"""Into how many pieces marks divide the replay window: it is never kept longer than by one such piece."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What one compaction writes, and what may leave the state once it is written."""

    seq: int
    checkpoint: dict[str, Any]
    messages: list[Message]
    records: dict[str, Any]
    trim_to: int
    """Events up to this seq are older than the replay window."""
    run_ids: list[str]
    lasting: list[tuple[str, str]]
    """Keys of the memories that the archive has from now on."""
    marks: list[tuple[int, int]]
    """(time, seq) of the checkpoints that later compactions measure the replay window by."""


def closed_runs(state: SessionState) -> int:
    """How many runs wait for being archived."""
    return sum(run.phase is Phase.CLOSED for run in state.runs.values())


def compact(state: SessionState, *, now: int, replay_window_ms: int) -> Compaction:
    """The checkpoint at the head, and everything that goes to the archive with it. Leaves the state as it is.

    Messages go as soon as they are final: users' at once, answers when their run has ended.
    """
    closed = {run_id for run_id, run in state.runs.items() if run.phase is Phase.CLOSED}
    answering = {
        view.info["messageId"] for view in state.transcript.runs.values() if "messageId" in view.info and view.answer
    }
    messages = [message for message in state.transcript.messages() if message["id"] not in answering]
    records: dict[str, Any] = {message_key(message["id"]): True for message in messages}
    for run_id in closed:
        records[run_key(run_id)] = _run_record(state.runs[run_id])
    for steer_id, steer in state.steers.items():
        if steer.run_id in closed:
            run = state.runs[steer.run_id]
            fate = {"runId": steer.run_id, "status": steer.status.value, "reason": run.reason, "seq": run.ended_seq}
            records[steer_key(steer_id)] = fate
    lasting = [key for key, memory in state.memories.items() if memory["lasting"]]
    for key in lasting:
        records[command_key(*key)] = state.memories[key]
    expired = [seq for at, seq in state.marks if at <= now - replay_window_ms]
    marks = state.marks[max(0, len(expired) - 1) :]
    if not marks or state.at - marks[-1][0] >= replay_window_ms // _MARKS_KEPT:
        marks.append((state.at, state.seq))
    return Compaction(
        seq=state.seq,
        checkpoint=_dump(state, without=closed, marks=marks, archived=state.archived or bool(records)),
        messages=messages,
        records=records,
        trim_to=expired[-1] if expired else 0,
        run_ids=list(closed),
        lasting=lasting,
        marks=marks,
    )


def compacted(state: SessionState, compaction: Compaction) -> None:
    """Lets go what the store has taken over."""
    state.forget_runs(compaction.run_ids)
    state.transcript.forget(message["id"] for message in compaction.messages)
    state.marks = compaction.marks
    for key in compaction.lasting:
        memory = state.memories.get(key)
        if memory is not None and memory["lasting"]:
            state.memories[key] = {**memory, "lasting": False}


def _run_record(run: RunState) -> dict[str, Any]:
    record = {
        "reason": run.reason,
        "cause": run.cause,
        "seq": run.ended_seq,
        "at": run.ended_at,
        "agent": run.agent,
        "by": run.by,
        "device": run.device,
    }
    return {name: value for name, value in record.items() if value is not None}


# The checkpoint's form


def _dump(state: SessionState, *, without: set[str], marks: list[tuple[int, int]], archived: bool) -> dict[str, Any]:
    transcript = state.transcript
    return {
        "epoch": state.epoch,
        "seq": state.seq,
        "at": state.at,
        "queue": state.queue.copy(),
        "main": state.main,
        "lastMessageId": state.last_message_id,
        "archived": archived,
        "marks": marks,
        "memories": list(state.memories.values()),
        "steers": [
            [steer_id, steer.run_id, steer.status.value, steer.command]
            for steer_id, steer in state.steers.items()
            if steer.run_id not in without
        ],
        "runs": [_dump_run(run) for run_id, run in state.runs.items() if run_id not in without],
        "views": [view.snapshot() for view in transcript.runs.values()],
        "answers": [_dump_answer(view.answer) for view in transcript.runs.values() if view.answer is not None],
    }


def _dump_run(run: RunState) -> dict[str, Any]:
    return {
        "runId": run.run_id,
        "phase": run.phase.value,
        "firstSeq": run.first_seq,
        "terms": run.terms,
        "agent": run.agent,
        "by": run.by,
        "device": run.device,
        "command": run.command,
        "message": run.message,
        "node": run.node,
        "attempt": run.attempt,
        "boundaries": [list(boundary) for boundary in run.boundaries],
        "resolved": run.resolved.copy(),
        "reason": run.reason,
        "cause": run.cause,
        "endedSeq": run.ended_seq,
        "endedAt": run.ended_at,
    }


def _dump_answer(answer: OpenMessage) -> dict[str, Any]:
    return {"message": answer.view(), "done": [part.done for part in answer.parts]}


def load(checkpoint: Mapping[str, Any]) -> SessionState:
    """The state that a checkpoint was made of, without what went to the archive."""
    state = SessionState(checkpoint["epoch"])
    transcript = state.transcript
    state.queue = list(checkpoint["queue"])
    state.main = checkpoint["main"]
    state.last_message_id = checkpoint["lastMessageId"]
    state.archived = checkpoint["archived"]
    state.marks = [(at, seq) for at, seq in checkpoint["marks"]]
    state.memories = {(memory["principal"], memory["id"]): memory for memory in checkpoint["memories"]}
    state.steers = {
        steer_id: SteerState(run_id, SteerStatus(status), command)
        for steer_id, run_id, status, command in checkpoint["steers"]
    }
    answers = {item["message"]["runId"]: item for item in checkpoint["answers"]}
    transcript.restore(
        checkpoint["epoch"],
        checkpoint["seq"],
        checkpoint["at"],
        runs=[RunView(info, _load_answer(answers.get(info["runId"]))) for info in checkpoint["views"]],
    )
    for item in checkpoint["runs"]:
        run = _load_run(item)
        view = transcript.runs.get(run.run_id)
        run.answer = view.answer if view is not None else None
        state.runs[run.run_id] = run
    return state


def _load_answer(item: Mapping[str, Any] | None) -> OpenMessage | None:
    if item is None:
        return None
    fields = dict(item["message"])
    parts = fields.pop("parts")
    open_parts = [OpenPart.of(part, done=done) for part, done in zip(parts, item["done"], strict=True)]
    return OpenMessage(fields, open_parts)


def _load_run(item: Mapping[str, Any]) -> RunState:
    return RunState(
        run_id=item["runId"],
        phase=Phase(item["phase"]),
        first_seq=item["firstSeq"],
        terms=item["terms"],
        agent=item["agent"],
        by=item["by"],
        device=item["device"],
        command=item["command"],
        message=item["message"],
        node=item["node"],
        attempt=item["attempt"],
        boundaries=deque((Boundary(*boundary) for boundary in item["boundaries"]), maxlen=BOUNDARIES_KEPT),
        resolved=dict(item["resolved"]),
        reason=item["reason"],
        cause=item["cause"],
        ended_seq=item["endedSeq"],
        ended_at=item["endedAt"],
    )
