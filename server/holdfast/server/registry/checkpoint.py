"""Taking what has ended out of a state: checkpoints, and what goes to the archive.

A checkpoint is the state without its closed runs; their messages, and records under the keys of `keys.py`, go to
the archive in the same step. So opening a session costs its recent past, and an id of long ago is still known.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar, cast

from holdfast.protocol.events import Message
from holdfast.protocol.messages import OpenMessage, OpenPart
from holdfast.protocol.transcript import TranscriptRun
from holdfast.server.registry.keys import command_key, message_key, run_key, steer_key
from holdfast.server.registry.state import (
    BOUNDARIES_KEPT,
    MEMORIES_KEPT,
    MEMORY_KEPT_MS,
    Boundary,
    Memory,
    RunState,
    SessionState,
    SteerState,
    SteerStatus,
)
from holdfast.server.registry.table import RunPhase

_T = TypeVar("_T")
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
    excess: list[tuple[str, str]]
    """Keys of those that are more than a checkpoint carries: the archive has them, or they are old enough to go."""
    spilled_at: int
    """See `SessionState.spilled_at`."""
    marks: list[tuple[int, int]]
    """(time, seq) of the checkpoints that later compactions measure the replay window by."""


def closed_runs(state: SessionState) -> int:
    """How many runs wait for being archived."""
    return sum(run.phase is RunPhase.CLOSED for run in state.runs.values())


def compact(state: SessionState, *, now: int, replay_window_ms: int) -> Compaction:
    """The checkpoint at the head, and everything that goes to the archive with it. Leaves the state as it is.

    Messages go as soon as they are final: users' at once, assistants' when their run has ended.
    """
    closed = {run_id for run_id, run in state.runs.items() if run.phase is RunPhase.CLOSED}
    messages = state.transcript.finished()
    records: dict[str, Any] = {message_key(message["id"]): True for message in messages}
    for run_id in closed:
        records[run_key(run_id)] = _run_record(state.runs[run_id])
    for steer_id, steer in state.steers.items():
        if steer.run_id in closed:
            run = state.runs[steer.run_id]
            fate = {"runId": steer.run_id, "status": steer.status.value, "reason": run.reason, "seq": run.ended_seq}
            records[steer_key(steer_id)] = fate
    lasting = [key for key, memory in state.memories.items() if memory["lasting"]]
    excess = list(islice(state.memories, max(0, len(state.memories) - MEMORIES_KEPT)))
    young = [key for key in excess if state.memories[key]["at"] > state.at - MEMORY_KEPT_MS]
    for key in (*lasting, *young):
        records[command_key(*key)] = state.memories[key]
    expired = [seq for at, seq in state.marks if at <= now - replay_window_ms]
    marks = state.marks[max(0, len(expired) - 1) :]
    if not marks or state.at - marks[-1][0] >= replay_window_ms // _MARKS_KEPT:
        marks.append((state.at, state.seq))
    spilled_at = max([state.spilled_at, *(state.memories[key]["at"] for key in young)])
    return Compaction(
        seq=state.seq,
        checkpoint=_dump(
            state,
            without=closed,
            marks=marks,
            archived=state.archived or bool(records),
            memories=[_archived(memory) for memory in islice(state.memories.values(), len(excess), None)],
            spilled_at=spilled_at,
        ),
        messages=messages,
        records=records,
        trim_to=expired[-1] if expired else 0,
        run_ids=list(closed),
        lasting=lasting,
        excess=excess,
        spilled_at=spilled_at,
        marks=marks,
    )


def _archived(memory: Memory) -> Memory:
    """What is left of it in the state once the archive has it, if it is lasting."""
    return {**memory, "lasting": False} if memory["lasting"] else memory


def compacted(state: SessionState, compaction: Compaction) -> None:
    """Lets go what the store has taken over."""
    state.forget_runs(compaction.run_ids)
    state.transcript.forget(message["id"] for message in compaction.messages)
    state.marks = compaction.marks
    state.spilled_at = compaction.spilled_at
    for key in compaction.excess:
        state.memories.pop(key, None)
    for key in compaction.lasting:
        if key in state.memories:
            state.memories[key] = _archived(state.memories[key])


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


def _dump(
    state: SessionState,
    *,
    without: set[str],
    marks: list[tuple[int, int]],
    archived: bool,
    memories: list[Memory],
    spilled_at: int,
) -> dict[str, Any]:
    """Everything of unbounded number or size stands in lists of its own, which can be encoded piece by piece."""
    transcript = state.transcript
    messages = [view.message for view in transcript.runs.values() if view.message is not None]
    return {
        "epoch": state.epoch,
        "seq": state.seq,
        "at": state.at,
        "queue": state.queue.copy(),
        "main": state.main,
        "lastMessageId": state.last_message_id,
        "archived": archived,
        "marks": marks,
        "memories": memories,
        "spilledAt": spilled_at,
        "steers": [
            [steer_id, steer.run_id, steer.status.value, steer.command]
            for steer_id, steer in state.steers.items()
            if steer.run_id not in without
        ],
        "runs": [_dump_run(run) for run_id, run in state.runs.items() if run_id not in without],
        "views": [view.snapshot() for view in transcript.runs.values()],
        "answers": [{"message": message.fields.copy(), "parts": len(message.parts)} for message in messages],
        "parts": [_dump_part(part) for message in messages for part in message.parts],
        "blocks": [block for message in messages for part in message.parts for block in part.blocks() or ()],
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
        "message": run.queued_message,
        "node": run.node,
        "attempt": run.attempt,
        "boundaries": [list(boundary) for boundary in run.boundaries],
        "resolved": run.resolved.copy(),
        "reason": run.reason,
        "cause": run.cause,
        "endedSeq": run.ended_seq,
        "endedAt": run.ended_at,
    }


def _dump_part(part: OpenPart) -> dict[str, Any]:
    blocks = part.blocks()
    count = None if blocks is None else len(blocks)
    return {"kind": part.kind, "fields": part.fields.copy(), "done": part.done, "blocks": count}


def load(checkpoint: Mapping[str, Any]) -> SessionState:
    """The state that a checkpoint was made of, without what went to the archive."""
    return finished(loading(checkpoint))


def finished(steps: Generator[None, None, _T]) -> _T:
    """What comes of `steps`, done in one go."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("_T", end.value)


def loading(checkpoint: Mapping[str, Any]) -> Generator[None, None, SessionState]:
    """`load` in steps of bounded length: returns the state."""
    state = SessionState(checkpoint["epoch"])
    transcript = state.transcript
    state.queue = list(checkpoint["queue"])
    state.main = checkpoint["main"]
    state.last_message_id = checkpoint["lastMessageId"]
    state.archived = checkpoint["archived"]
    state.marks = [(at, seq) for at, seq in checkpoint["marks"]]
    state.memories = OrderedDict(((item["principal"], item["id"]), item) for item in checkpoint["memories"])
    state.spilled_at = checkpoint.get("spilledAt", 0)
    state.steers = {
        steer_id: SteerState(run_id, SteerStatus(status), command)
        for steer_id, run_id, status, command in checkpoint["steers"]
    }
    yield
    parts, blocks = iter(checkpoint.get("parts", ())), iter(checkpoint.get("blocks", ()))
    messages: dict[str, OpenMessage] = {}
    for item in checkpoint["answers"]:
        messages[item["message"]["runId"]] = _load_message(item, parts, blocks)
        yield
    transcript.restore(
        checkpoint["epoch"],
        checkpoint["seq"],
        checkpoint["at"],
        runs=[TranscriptRun(info, messages.get(info["runId"])) for info in checkpoint["views"]],
    )
    for item in checkpoint["runs"]:
        run = _load_run(item)
        view = transcript.runs.get(run.run_id)
        run.message = view.message if view is not None else None
        state.runs[run.run_id] = run
        yield
    return state


def _load_message(item: Mapping[str, Any], parts: Iterator[Any], blocks: Iterator[str]) -> OpenMessage:
    fields = dict(item["message"])
    if "parts" in fields:  # as it was written before parts were apart from their message
        whole = fields.pop("parts")
        return OpenMessage(
            fields, [OpenPart.of(part, done=done) for part, done in zip(whole, item["done"], strict=True)]
        )
    return OpenMessage(fields, [_load_part(part, blocks) for part in islice(parts, item["parts"])])


def _load_part(part: Mapping[str, Any], blocks: Iterator[str]) -> OpenPart:
    text = None if part["blocks"] is None else islice(blocks, part["blocks"])
    return OpenPart.of_blocks(part["kind"], part["fields"], text, done=part["done"])


def _load_run(item: Mapping[str, Any]) -> RunState:
    return RunState(
        run_id=item["runId"],
        phase=RunPhase(item["phase"]),
        first_seq=item["firstSeq"],
        terms=item["terms"],
        agent=item["agent"],
        by=item["by"],
        device=item["device"],
        command=item["command"],
        queued_message=item["message"],
        node=item["node"],
        attempt=item["attempt"],
        boundaries=deque((Boundary(*boundary) for boundary in item["boundaries"]), maxlen=BOUNDARIES_KEPT),
        resolved=dict(item["resolved"]),
        reason=item["reason"],
        cause=item["cause"],
        ended_seq=item["endedSeq"],
        ended_at=item["endedAt"],
    )
