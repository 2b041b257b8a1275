"""A decision in the making: events are numbered, folded and collected as they are added."""

from __future__ import annotations

import hashlib
from typing import Any, cast

from holdfast.protocol.commands import SeenPosition
from holdfast.protocol.ends import ENDS
from holdfast.protocol.events import Cause, EndReason, Event, Failure, Kept, PendingSteer, Position, UserMessage
from holdfast.protocol.values import JSON
from holdfast.server.registry.fold import fold
from holdfast.server.registry.state import Memory, Note, Record, RunState, SessionState, Terms
from holdfast.server.registry.work import Context, Decision

SERVER_PRINCIPAL = "holdfast"
"""Who ends a run that nobody ended by hand; its device is the node."""

_NULLABLE = frozenset({"after", "value"})


class Draft:
    """Adds events to a state and collects them. What one decision adds goes into one append.

    The state is moved on at once, so that the next piece of work of the same batch is decided on it. Whoever cannot
    append the result throws the state away and folds it anew from the store.
    """

    __slots__ = ("command", "context", "decision", "state")

    def __init__(self, state: SessionState, context: Context, command: str | None = None) -> None:
        self.state = state
        self.context = context
        self.decision = Decision()
        self.command = command
        """The id of the command that is decided, if one is."""

    def emit(self, kind: str, *, note: Note | None = None, command: str | None = None, **fields: Any) -> None:
        """Adds one event. Fields that are None are left out, but for the two that may be null on the wire."""
        event = self._numbered(kind, command)
        for name, value in fields.items():
            if value is not None or name in _NULLABLE:
                event[name] = value
        self._add(event, note)

    def _numbered(self, kind: str, command: str | None) -> dict[str, Any]:
        transcript, now = self.state.transcript, self.context.now
        event: dict[str, Any] = {
            "type": kind,
            "seq": transcript.seq + 1,
            "at": now if now > transcript.at else transcript.at,
        }
        cause = command or self.command
        if cause is not None:
            event["command"] = cause
        return event

    def _add(self, event: dict[str, Any], note: Note | None) -> None:
        record = Record(cast("Event", event), note)
        fold(self.state, record)
        self.decision.records.append(record)

    def remember(self, memory: Memory) -> None:
        """Keeps the command's reply beside the last event it added."""
        event, note = self.decision.records[-1]
        self.decision.records[-1] = Record(event, {**(note or {}), "memory": memory})
        self.state.remember(memory)

    # Runs

    def can_run(self, agent: str) -> bool:
        """Whether this node may start a run of `agent` now."""
        return self.context.accepting and agent in self.context.agents

    def start(self, run_id: str, agent: str, message: UserMessage, terms: Terms) -> None:
        """Enters the message and starts its run on this node."""
        by, device = message["by"], message["device"]
        known = self.state.runs.get(run_id)
        command = None if known is None else known.command
        self.emit("message", message=message, runId=run_id, after=self.state.last_message_id, command=command)
        self.emit(
            "run.started",
            runId=run_id,
            agent=agent,
            by=by,
            device=device,
            messageId=derived_id("a", run_id),
            after=message["id"],
            attempt=1,
            node=self.context.node,
            note={"terms": terms},
            command=command,
        )

    def enqueue(
        self,
        run_id: str,
        agent: str,
        message: UserMessage,
        terms: Terms,
        *,
        position: int,
        command: str | None = None,
    ) -> None:
        """Puts a run into the queue, at `position` from 1."""
        self.emit(
            "run.queued",
            runId=run_id,
            agent=agent,
            by=message["by"],
            device=message["device"],
            message=message,
            position=position,
            note={"terms": terms},
            command=command,
        )

    def promote(self) -> None:
        """Starts the head of the queue, if the session is free and this node can run it."""
        state = self.state
        if state.main is not None or not state.queue:
            return
        run = state.runs[state.queue[0]]
        if self.can_run(run.agent):
            assert run.queued_message is not None, "a queued run carries its message"
            self.start(run.run_id, run.agent, run.queued_message, run.terms)

    def end(
        self,
        run: RunState,
        reason: EndReason,
        *,
        cause: Cause | None = None,
        by: str | None = None,
        device: str | None = None,
        seen: SeenPosition | None = None,
        error: Failure | None = None,
        usage: dict[str, JSON] | None = None,
        promote: bool = True,
    ) -> None:
        """Appends the run's terminal, and in the same append what follows from it.

        Steers that were not applied go back to their senders with the terminal, or become the next messages, ahead of
        the queue; then the queue moves on, unless the caller has something else to start.
        """
        was_active = run.active
        agent = run.agent
        steers = list(self.state.pending_steers(run.run_id))
        to_send = [steer for steer in steers if ENDS[reason].sends_steers and steer["ifEnded"] == "send"]
        kept: list[Kept] | None = None
        position = self.usable(seen)
        if position is not None and was_active:
            kept = [entry for entry in run.kept(position["seq"]) if entry["length"]]
        self.emit(
            "run.ended",
            runId=run.run_id,
            reason=reason,
            cause=cause,
            by=by,
            device=device,
            seen=position if was_active else None,
            kept=kept,
            error=error,
            usage=usage,
            returned=[
                {"steerId": steer["steerId"], "parts": steer["parts"]} for steer in steers if steer not in to_send
            ],
        )
        for position_in_queue, steer in enumerate(to_send, start=1):
            self.enqueue(
                steer["steerId"],
                agent,
                self.message_of(steer),
                self.terms(),
                position=position_in_queue,
                command=self.state.steers[steer["steerId"]].command,
            )
        if promote:
            self.promote()

    def message_of(self, steer: PendingSteer) -> UserMessage:
        """The message that a steer becomes when there is no run left to steer."""
        return {
            "id": derived_id("u", steer["steerId"]),
            "role": "user",
            "parts": steer["parts"],
            "by": steer["by"],
            "device": steer["device"],
            "at": max(self.context.now, self.state.at),
        }

    def terms(self, *, alongside: bool = False) -> Terms:
        """Those of a run accepted now, without limits in time."""
        return {"alongside": alongside, "acceptedAt": self.context.now}

    def usable(self, seen: SeenPosition | None) -> Position | None:
        """The position on screen, if it means anything here: of this epoch, and at most the head."""
        if seen is None or seen.epoch != self.state.epoch:
            return None
        return {"epoch": seen.epoch, "seq": min(seen.seq, self.state.seq)}

    def apply_steers(self, run: RunState) -> None:
        """Gives all pending steers of a run to its agent, in order, cut to what each sender had seen."""
        for steer in list(self.state.pending_steers(run.run_id)):
            seen = steer.get("seen")
            self.emit(
                "steer.applied",
                runId=run.run_id,
                steerId=steer["steerId"],
                seen=seen,
                kept=None if seen is None else run.kept(seen["seq"]),
            )
            self.decision.steers.append(steer)


def derived_id(prefix: str, run_id: str) -> str:
    """A message id made from a run's id, the same on every node and for every repeat."""
    whole = f"{prefix}~{run_id}"
    return whole if len(whole) <= 128 else f"{prefix}~{hashlib.sha256(run_id.encode()).hexdigest()}"
