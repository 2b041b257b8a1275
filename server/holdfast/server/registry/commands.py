"""Deciding what clients ask: send, cancel, steer, withdraw, answer.

Each function either raises CommandError before anything was added, or adds its events and returns the reply. An
ended or unknown run is an outcome and no error: clients race with the end of runs all the time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, assert_never, cast

from holdfast.protocol.codec import JSON_CODEC
from holdfast.protocol.commands import Answer, Cancel, SeenPosition, Send, Steer, Withdraw
from holdfast.protocol.control import Ack, Outcome
from holdfast.protocol.errors import CommandError
from holdfast.protocol.events import Part, UserMessage
from holdfast.protocol.values import EVENT_BYTES
from holdfast.server.registry.draft import Draft, derived_id
from holdfast.server.registry.keys import command_key, message_key, run_key, steer_key
from holdfast.server.registry.state import Memory, RunState, SessionState, SteerStatus, Terms
from holdfast.server.registry.upkeep import request_passed
from holdfast.server.registry.work import Ask, Context, Decision

_CONTENT_BYTES = EVENT_BYTES - 4096
"""Of parts and metadata: what leaves room for the rest of their event."""
_RESERVED_MESSAGE_IDS = ("a~", "u~")


def decide_command(state: SessionState, ask: Ask, context: Context) -> Decision:
    """What a command adds, and the reply to its sender.

    Raises CommandError; the state is then as it was.
    """
    command = ask.command
    digest = digest_of(ask)
    memory = _remembered(state, ask, context)
    if memory is not None:
        if memory["digest"] != digest:
            raise CommandError("conflict", "another command of yours has had this id", path="$.id")
        reply = memory["reply"].copy()
        reply["duplicate"] = True
        return Decision(reply=reply)
    draft = Draft(state, context, command.id)
    reply = _decide(draft, ask)
    decision = draft.decision
    decision.reply = reply
    if decision.records:
        reply["seq"] = state.seq
        draft.remember(
            {
                "principal": ask.principal,
                "id": command.id,
                "digest": digest,
                "reply": reply.copy(),
                "at": state.at,
                "lasting": lasting(ask),
            }
        )
    return decision


def _decide(draft: Draft, ask: Ask) -> Ack:
    command = ask.command
    match command:
        case Send():
            return _send(draft, ask, command)
        case Cancel():
            return _cancel(draft, ask, command)
        case Steer():
            return _steer(draft, ask, command)
        case Withdraw():
            return _withdraw(draft, command)
        case Answer():
            return _answer(draft, ask, command)
        case _ as unreachable:
            assert_never(unreachable)


def lasting(ask: Ask) -> bool:
    """Whether the command is remembered as long as its session."""
    return isinstance(ask.command, Send) or (isinstance(ask.command, Steer) and ask.command.if_ended == "send")


def digest_of(ask: Ask) -> str:
    """Of a command's body. `seen` and `trace` do not count: a repeat may know more than the first try."""
    body = ask.command.model_dump(exclude={"seen", "trace"}, exclude_none=True)
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=12).hexdigest()


def _remembered(state: SessionState, ask: Ask, context: Context) -> Memory | None:
    known = state.memories.get((ask.principal, ask.command.id))
    if known is None:
        known = cast("Memory | None", context.archive.get(command_key(ask.principal, ask.command.id)))
    return known


def _ack(draft: Draft, outcome: Outcome, **fields: Any) -> Ack:
    return cast("Ack", {"type": "ack", "id": draft.command, "outcome": outcome, **fields})


def _already_ended(draft: Draft, run_id: str | None, run: RunState | None, archived: Mapping[str, Any] | None) -> Ack:
    """`already_ended` with the reason and the seq of the run's terminal, from wherever they are known."""
    if run is not None:
        return _ack(draft, "already_ended", runId=run_id, reason=run.reason, seq=run.ended_seq)
    known = archived or {}
    fields = {name: known[name] for name in ("reason", "seq") if name in known}
    return _ack(draft, "already_ended", runId=run_id, **fields)


# send


def _send(draft: Draft, ask: Ask, command: Send) -> Ack:
    state, context = draft.state, draft.context
    run_id = command.run
    prevented = _prevented(state, context, run_id)
    if prevented is not None:
        return _ack(draft, "ended", runId=run_id, reason="cancelled", cause="prevented", seq=prevented)
    _check_id_is_free(state, context, run_id, path="$.runId" if command.run_id else "$.id")
    _check_message_id(state, context, command)
    parts = command.content()
    _check_size(parts, command.metadata, path="$.text" if command.text is not None else "$.parts")
    main = state.runs[state.main] if state.main is not None else None
    if command.when_busy == "steer" and main is not None:
        _accept_steer(draft, ask, main, steer_id=run_id, parts=parts, boundary="now", if_ended="send")
        return _ack(draft, "steered", runId=main.run_id)
    agent = _agent(context, command.agent)
    if not context.accepting:
        raise CommandError("draining", "this server starts no new runs")
    message = _message(draft, ask, command, parts)
    terms = _terms(draft, command)
    if command.when_busy == "alongside":
        beside = sum(run.active and run.terms["alongside"] for run in state.runs.values())
        if beside >= context.limits.alongside:
            raise _limit(f"this session has {beside} runs alongside already")
    elif command.when_busy == "interrupt":
        if main is not None:
            draft.end(
                main,
                "cancelled",
                cause="superseded",
                by=ask.principal,
                device=ask.device,
                seen=command.seen,
                promote=False,
            )
    elif command.when_busy == "reject" and main is not None:
        raise CommandError("busy", "a run is going on in this session")
    elif command.when_busy == "queue" and (main is not None or state.queue):
        position = len(state.queue) + 1
        if position > context.limits.queued:
            raise _limit(f"{len(state.queue)} runs wait in this session already")
        draft.enqueue(run_id, agent, message, terms, position=position)
        return _ack(draft, "queued", runId=run_id, position=position)
    draft.start(run_id, agent, message, terms)
    return _ack(draft, "started", runId=run_id)


def _prevented(state: SessionState, context: Context, run_id: str) -> int | None:
    """The seq of the terminal of a run that was prevented before it was sent."""
    run = state.runs.get(run_id)
    if run is not None:
        return run.ended_seq if run.cause == "prevented" else None
    record = context.archive.get(run_key(run_id))
    return record["seq"] if record is not None and record.get("cause") == "prevented" else None


def _check_id_is_free(state: SessionState, context: Context, new_id: str, *, path: str) -> None:
    archived = run_key(new_id) in context.archive or steer_key(new_id) in context.archive
    if archived or state.has_steer_or_run(new_id):
        raise CommandError("conflict", "this id is another run's or steer's", path=path)


def _check_message_id(state: SessionState, context: Context, command: Send) -> None:
    message_id = command.message_id
    if message_id is None:
        return
    if message_id.startswith(_RESERVED_MESSAGE_IDS):
        raise CommandError("invalid", "ids that begin with a~ or u~ are the server's", path="$.messageId")
    queued = (run.queued_message["id"] for run in state.runs.values() if run.queued_message is not None)
    archived = message_key(message_id) in context.archive
    if archived or state.transcript.has_message(message_id) or message_id in queued:
        raise CommandError("conflict", "another message has this id", path="$.messageId")


def _check_size(parts: list[Part], metadata: dict[str, Any] | None, *, path: str) -> None:
    if len(JSON_CODEC.encode({"parts": parts, "metadata": metadata})) > _CONTENT_BYTES:
        raise CommandError("too_large", f"a message holds at most {_CONTENT_BYTES} bytes", path=path)


def _agent(context: Context, name: str | None) -> str:
    if name is None:
        name = next(iter(context.agents), None)
    if name is None or name not in context.agents:
        known = ", ".join(context.agents) or "none"
        asked = "the server has no agent" if name is None else f"there is no agent {name!r}"
        raise CommandError("unknown_agent", f"{asked}; there are: {known}", path="$.agent")
    return name


def _limit(message: str) -> CommandError:
    return CommandError("limit_reached", message)


def _message(draft: Draft, ask: Ask, command: Send, parts: list[Part]) -> UserMessage:
    message: UserMessage = {
        "id": command.message_id or derived_id("u", command.run),
        "role": "user",
        "parts": parts,
        "by": ask.principal,
        "device": ask.device,
        "at": max(draft.context.now, draft.state.at),
    }
    if command.metadata is not None:
        message["metadata"] = command.metadata
    return message


def _terms(draft: Draft, command: Send) -> Terms:
    terms = draft.terms(alongside=command.when_busy == "alongside")
    if command.deadline_ms is not None:
        terms["deadlineAt"] = draft.context.now + command.deadline_ms
    if command.when_abandoned is not None:
        terms["abandonMs"] = command.when_abandoned.cancel_after_ms
    if command.metadata is not None:
        terms["metadata"] = command.metadata
    return terms


# cancel


def _cancel(draft: Draft, ask: Ask, command: Cancel) -> Ack:
    if command.run_id is None:
        return _cancel_scope(draft, ask, command)
    state, context, run_id = draft.state, draft.context, command.run_id
    run = state.runs.get(run_id)
    if run is not None:
        if not run.open:
            return _already_ended(draft, run_id, run, None)
        draft.end(run, "cancelled", cause="user", by=ask.principal, device=ask.device, seen=command.seen)
        return _ack(draft, "cancelled", runId=run_id)
    archived = context.archive.get(run_key(run_id))
    if archived is not None:
        return _already_ended(draft, run_id, None, archived)
    steer = _steer_fate(state, context, run_id)
    if steer is not None and steer[1] is not SteerStatus.SENT:  # one that was sent is a run, and not known as one
        steered_run, status = steer
        if status is SteerStatus.APPLIED:
            return _ack(draft, "steered", runId=steered_run)
        if status is SteerStatus.PENDING:
            draft.emit("steer.withdrawn", runId=steered_run, steerId=run_id)
        return _ack(draft, "withdrawn", runId=steered_run)
    if command.if_unknown == "prevent":
        draft.emit(
            "run.ended",
            runId=run_id,
            reason="cancelled",
            cause="prevented",
            by=ask.principal,
            device=ask.device,
            returned=[],
        )
        return _ack(draft, "cancelled", runId=run_id)
    return _ack(draft, "unknown_run", runId=run_id)


def _cancel_scope(draft: Draft, ask: Ask, command: Cancel) -> Ack:
    state = draft.state
    up_to = command.up_to
    ended: list[str] = []
    # A position beyond the head is of a log that is gone: cut to the head it would reach what came after.
    if up_to is not None and up_to.epoch == state.epoch and up_to.seq <= state.seq:
        queued = [state.runs[run_id] for run_id in state.queue]
        active = [run for run in state.runs.values() if run.active]
        for run in [*queued, *active]:
            if run.first_seq <= up_to.seq:
                draft.end(
                    run,
                    "cancelled",
                    cause="user",
                    by=ask.principal,
                    device=ask.device,
                    seen=command.seen,
                    promote=False,
                )
                ended.append(run.run_id)
        if ended:
            draft.promote()
    return _ack(draft, "cancelled", runIds=ended)


def _steer_fate(state: SessionState, context: Context, steer_id: str) -> tuple[str, SteerStatus] | None:
    steer = state.steers.get(steer_id)
    if steer is not None:
        return steer.run_id, steer.status
    archived = context.archive.get(steer_key(steer_id))
    return None if archived is None else (archived["runId"], SteerStatus(archived["status"]))


# steer, withdraw


def _steer(draft: Draft, ask: Ask, command: Steer) -> Ack:
    state, context = draft.state, draft.context
    _check_id_is_free(state, context, command.id, path="$.id")
    parts = command.content()
    _check_size(parts, None, path="$.text" if command.text is not None else "$.parts")
    target = command.run_id or state.main
    run = state.runs.get(target) if target is not None else None
    if run is not None and run.open:
        _accept_steer(
            draft, ask, run, steer_id=command.id, parts=parts, boundary=command.boundary,
            if_ended=command.if_ended, seen=command.seen,
        )  # fmt: skip
        return _ack(draft, "accepted", runId=run.run_id)
    archived = context.archive.get(run_key(command.run_id)) if command.run_id is not None else None
    if run is None and archived is None and command.run_id is not None:
        return _ack(draft, "unknown_run", runId=command.run_id)
    if command.if_ended == "send":
        agent = run.agent if run is not None else archived["agent"] if archived is not None else ""
        return _send_steer(draft, ask, command, parts, agent or None)
    if run is not None:
        return _already_ended(draft, run.run_id, run, None)
    if archived is not None:
        return _already_ended(draft, command.run_id, None, archived)
    return _ack(draft, "unknown_run")


def _send_steer(draft: Draft, ask: Ask, command: Steer, parts: list[Part], agent: str | None) -> Ack:
    """There is nothing left to steer: the steer becomes the next message, ahead of the queue."""
    state, context = draft.state, draft.context
    name = _agent(context, agent)
    if not context.accepting:
        raise CommandError("draining", "this server starts no new runs")
    if len(state.queue) >= context.limits.queued:
        raise _limit(f"{len(state.queue)} runs wait in this session already")
    message: UserMessage = {
        "id": derived_id("u", command.id),
        "role": "user",
        "parts": parts,
        "by": ask.principal,
        "device": ask.device,
        "at": max(context.now, state.at),
    }
    if state.main is None:
        draft.start(command.id, name, message, draft.terms())
    else:
        draft.enqueue(command.id, name, message, draft.terms(), position=1)
    return _ack(draft, "sent", runId=command.id)


def _accept_steer(
    draft: Draft,
    ask: Ask,
    run: RunState,
    *,
    steer_id: str,
    parts: list[Part],
    boundary: str,
    if_ended: str,
    seen: SeenPosition | None = None,
) -> None:
    waiting = draft.state.pending_steers(run.run_id)
    limits = draft.context.limits
    # They may all go back to their senders in one event, the run's terminal.
    returned = [{"steerId": steer_id, "parts": parts}]
    if _returned_bytes(returned) > limits.steers_bytes:
        path = "$.text" if isinstance(ask.command, (Send, Steer)) and ask.command.text is not None else "$.parts"
        raise CommandError("too_large", f"a steer holds at most {limits.steers_bytes} bytes", path=path)
    returned.extend({"steerId": steer["steerId"], "parts": steer["parts"]} for steer in waiting)
    if len(waiting) >= limits.steers or _returned_bytes(returned) > limits.steers_bytes:
        raise _limit("this run has too many steers that were not applied yet")
    draft.emit(
        "steer.accepted",
        runId=run.run_id,
        steerId=steer_id,
        parts=parts,
        boundary=boundary,
        ifEnded=if_ended,
        by=ask.principal,
        device=ask.device,
        seen=draft.usable(seen),
    )


def _returned_bytes(steers: list[dict[str, Any]]) -> int:
    return len(JSON_CODEC.encode({"returned": steers}))


def _withdraw(draft: Draft, command: Withdraw) -> Ack:
    fate = _steer_fate(draft.state, draft.context, command.steer_id)
    if fate is None:
        return _ack(draft, "unknown_steer")
    run_id, status = fate
    match status:
        case SteerStatus.PENDING:
            draft.emit("steer.withdrawn", runId=run_id, steerId=command.steer_id)
            return _ack(draft, "withdrawn", runId=run_id)
        case SteerStatus.WITHDRAWN:
            return _ack(draft, "withdrawn", runId=run_id)
        case SteerStatus.APPLIED:
            return _ack(draft, "already_applied", runId=run_id)
        case SteerStatus.RETURNED | SteerStatus.SENT:
            archived = draft.context.archive.get(steer_key(command.steer_id))
            return _already_ended(draft, run_id, draft.state.runs.get(run_id), archived)
        case _ as unreachable:
            assert_never(unreachable)


# answer


def _answer(draft: Draft, ask: Ask, command: Answer) -> Ack:
    state, run_id = draft.state, command.run_id
    run = state.runs.get(run_id)
    if run is None:
        archived = draft.context.archive.get(run_key(run_id))
        if archived is None:
            return _ack(draft, "unknown_request", runId=run_id)
        return _already_ended(draft, run_id, None, archived)
    if not run.open:
        return _already_ended(draft, run_id, run, None)
    request = next(
        (item for item in state.transcript.runs[run_id].info["requests"] if item["id"] == command.request_id),
        None,
    )
    if request is None:
        outcome = run.resolved.get(command.request_id)
        if outcome is None:
            return _ack(draft, "unknown_request", runId=run_id)
        return _ack(draft, "already_answered" if outcome == "answered" else "expired", runId=run_id)
    if request_passed(run_id, request, draft.context):
        draft.emit("run.resolved", runId=run_id, requestId=request["id"], outcome="expired")
        return _ack(draft, "expired", runId=run_id)
    _check_size([], {"value": command.value}, path="$.value")
    draft.emit(
        "run.resolved",
        runId=run_id,
        requestId=request["id"],
        outcome="answered",
        by=ask.principal,
        device=ask.device,
        value=command.value,
    )
    return _ack(draft, "accepted", runId=run_id)
