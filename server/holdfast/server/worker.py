"""The task that works on one run here: it calls the agent, takes its output, stops it, and says when it has stopped.

    CALLING ──halt──► HALTED
       │                │
       └─────ended──────┴─┬─cancelled, expired─► SETTLING ─┬─agent has stopped, or its grace is over─► ENDED
                          └─any other end──────► LEAVING ──┘

The session's actor owns the log; this owns the agent's task. A cancel is entered by the actor; what is cancelled here
is only the agent, and never the writing of what it has said before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from enum import Enum
from typing import Any, Final, Literal, cast

import structlog

from holdfast.protocol.codec import JSON_CODEC
from holdfast.protocol.events import Failure, Message, PendingSteer, Request, RunInfo
from holdfast.protocol.messages import OpenPart, reopen
from holdfast.protocol.values import JSON, MAX_INTEGER
from holdfast.server.agent import Agent
from holdfast.server.agents.errors import AgentError
from holdfast.server.clock import Clock, Timer
from holdfast.server.failure import failure_of
from holdfast.server.registry import (
    Chunk,
    Decision,
    Finish,
    OpenRequest,
    OwnedWork,
    Owner,
    RetractRequest,
    RunState,
    Settle,
    TakeSteers,
    part_number,
)
from holdfast.server.roles import Output
from holdfast.server.run import Answer, InterruptScope, OutputTooLarge, Run, RunDetails
from holdfast.server.session import Session
from holdfast.server.settings import SessionSettings

_TEXT_LENGTH: Final = 40_000
"""Code points of text in one event: under 256 KiB in any encoding."""
_OPEN_REQUESTS: Final = 8
_USAGE_BYTES: Final = 16 * 1024
_PARTS: Final = 4_096
"""Of one answer: what is kept of all of them can be told in one event."""
_log = structlog.get_logger("holdfast.run")


class Stage(Enum):
    """How far the work on a run is."""

    CALLING = "calling"
    """The agent is called, and again for steers, until how the run ends by it is in the log."""
    HALTED = "halted"
    """The agent was stopped for a cancel that is on its way into the log."""
    SETTLING = "settling"
    """The run has ended, and `run.settled` is due when the agent has stopped."""
    LEAVING = "leaving"
    """The run has ended or is not this worker's any more, and nothing is due when the agent has stopped."""
    ENDED = "ended"
    """Nobody waits for the agent any more."""


class RunWorker:
    """Works on one attempt of one run. Created by the node when its `run.started` is in the log."""

    def __init__(
        self, session: Session, run: RunState, agent: Agent, *, clock: Clock, settings: SessionSettings
    ) -> None:
        self.owner = Owner(run.run_id, run.node, run.attempt)
        self.info = RunDetails(run.run_id, run.agent, run.by, run.device, run.attempt, run.terms.get("metadata", {}))
        self.stage = Stage.CALLING
        self._session = session
        self._agent = agent
        self._clock = clock
        self._settings = settings
        assert run.answer is not None, "a run that was started has an answer"
        self._answer = reopen(run.answer.view())
        self._answer.close_parts()
        self._before: list[Message] = []
        self._outputs: list[Output] = []
        self._waiting_bytes = 0
        self._waiting_chunks = 0
        self._room = asyncio.Event()
        """Set, for everyone who waits, when there may be room again."""
        self._produced_bytes = 0
        self._usage: dict[str, JSON] = {}
        self._ids = 0
        self._requests: dict[str, asyncio.Future[Answer]] = {}
        self._asked: set[str] = set()
        """Requests that came into the log, until it was seen that they are no longer open."""
        self._steers: dict[str, str] = {}
        """Boundaries of the steers that were accepted and not taken, by steer id."""
        self._untold: list[PendingSteer] = []
        """Steers that were applied for a `take_steers`, until one returns them: whoever waits may be cancelled."""
        self._call: asyncio.Task[None] | None = None
        self._current: Run | None = None
        self._scope: InterruptScope | None = None
        self._stopped_at: float | None = None
        self._grace: Timer | None = None
        self.task = asyncio.create_task(self._drive(), name=f"run {run.run_id}")
        """Ends when nothing of the agent is left."""
        self.task.add_done_callback(self._driven)

    # What the session's actor calls

    def take(self) -> list[Output]:
        """All output that waits, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def committed(self, outputs: Sequence[Output]) -> None:
        """What `take` gave is in the log, or was refused: there is room again."""
        for output in outputs:
            self._waiting_bytes -= output.size
        self._waiting_chunks = len(self._outputs)
        self._room.set()

    def halt(self) -> bool:
        """Stops the agent at once. Its run is about to end: what it says from now on is not taken.

        False where it was stopped before, or has ended by itself.
        """
        if self.stage is not Stage.CALLING:
            return False
        self.stage = Stage.HALTED
        self._stopped_at = self._clock.monotonic()
        if self._call is not None:
            self._call.cancel()
        self._room.set()
        return True

    def stranded(self) -> None:
        """The cancel that it was halted for was refused: the run cannot go on, and ends as failed."""
        if self.stage is Stage.HALTED:
            error: Failure = {"code": "stopped", "message": "The agent was stopped by a cancel that was then refused."}
            self._put(Finish(self.owner, "failed", error=error, usage=self._usage or None))

    @property
    def over(self) -> bool:
        """Whether it was told that the run has ended: its agent was stopped for good."""
        return self.stage not in (Stage.CALLING, Stage.HALTED)

    def ended(self, event: Mapping[str, Any] | None) -> None:
        """The run has ended, by this event or (None) for this worker only: its agent stops, or has its grace to.

        For a run that was cancelled or expired the settling is due from here. Told again, it does nothing.
        """
        if self.over:
            return
        self.halt()
        due = event is not None and event["reason"] in ("cancelled", "expired")
        self.stage = Stage.SETTLING if due else Stage.LEAVING
        if self.task.done():
            self._close(confirmed=True)
        else:
            self._grace = self._clock.call_later(self._settings.grace_ms / 1000, self._grace_over)

    def steered(self, steer_id: str, boundary: str) -> None:
        """A steer was accepted: a `now` one interrupts the call that is going on."""
        self._steers[steer_id] = boundary
        if boundary == "now":
            self._interrupt()

    def unsteered(self, steer_id: str) -> None:
        """A steer was withdrawn. Where it has interrupted a call already, the agent is called again without it."""
        self._steers.pop(steer_id, None)

    def resolved(self, event: Mapping[str, Any]) -> None:
        """A request was resolved by this event."""
        self._asked.discard(event["requestId"])
        waiter = self._requests.pop(event["requestId"], None)
        if waiter is not None and not waiter.done():
            waiter.set_result(Answer(event["outcome"], event.get("value"), event.get("by"), event.get("device")))

    def reconcile(self, view: RunInfo) -> None:
        """Events were missed or lost: requests that are gone are withdrawn, steers that wait interrupt."""
        still_open = {request["id"] for request in view["requests"]}
        gone, self._asked = self._asked - still_open, self._asked & still_open
        for request_id in gone & self._requests.keys():
            waiter = self._requests.pop(request_id)
            if not waiter.done():
                waiter.set_result(Answer("withdrawn"))
        known, self._steers = self._steers, {}
        for steer in view["steers"]:
            if steer["steerId"] in known:
                self._steers[steer["steerId"]] = steer["boundary"]
            else:
                self.steered(steer["steerId"], steer["boundary"])

    # What the Run calls

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._session.id

    @property
    def stopping(self) -> bool:
        """Whether the run has ended or is about to."""
        return self.stage is not Stage.CALLING

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for the agent to stop any more."""
        return self.stage is Stage.ENDED

    @property
    def steers_pending(self) -> bool:
        """Whether a steer with boundary `now` waits."""
        return "now" in self._steers.values()

    def messages(self) -> list[Message]:
        """The transcript before the run, and its answer so far."""
        if not self._answer.parts:
            return list(self._before)
        return [*self._before, self._answer.view()]

    async def write_text(self, kind: Literal["text", "reasoning"], delta: str) -> None:
        """Takes text. Adjacent text that still waits becomes one chunk."""
        for start in range(0, len(delta), _TEXT_LENGTH):
            piece = delta if len(delta) <= _TEXT_LENGTH else delta[start : start + _TEXT_LENGTH]
            size = len(piece) if piece.isascii() else len(piece.encode())
            self._count(size)
            self._fold(kind, {"delta": piece})
            last = self._outputs[-1] if self._outputs else None
            if last is not None and isinstance(last.work, Chunk) and last.work.kind == kind:
                waiting = cast("str", last.work.fields["delta"])
                if len(waiting) + len(piece) <= _TEXT_LENGTH:
                    last.work.fields["delta"] = waiting + piece
                    last.size += size
                    self._waited(size)
                    continue
            self._put(Chunk(self.owner, kind, {"delta": piece}), size=size)
            self._waited(size)
        if self._full:
            await self._until_room()

    async def write(self, kind: str, fields: dict[str, JSON]) -> None:
        """Takes a chunk of another kind."""
        size = sum(len(value) if isinstance(value, str) else 64 for value in fields.values())
        self._count(size)
        self._fold(kind, fields)
        self._put(Chunk(self.owner, kind, fields), size=size)
        self._waited(size)
        await self._until_room()

    async def request(self, request: Request, expires_ms: int | None) -> Answer:
        """Opens a request, waits for what becomes of it, and takes it back when the wait is cancelled."""
        if len(self._requests) >= _OPEN_REQUESTS:
            raise AgentError("limit_reached", f"A run asks for at most {_OPEN_REQUESTS} things at once.")
        if expires_ms is not None:
            # Agents give floats too, and infinity.
            request["expiresAt"] = int(min(self._clock.now() + max(expires_ms, 0), MAX_INTEGER))
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._requests[request["id"]] = waiter
        self._put(OpenRequest(self.owner, request), done=lambda _: self._asked.add(request["id"]))
        try:
            return await waiter
        except asyncio.CancelledError:
            self._requests.pop(request["id"], None)
            if not self.stopping:  # the end of the run closes it otherwise
                self._put(RetractRequest(self.owner, request["id"]))
            raise

    async def take_steers(self) -> list[PendingSteer]:
        """Applies all pending steers; they are in the log when this returns. Cancelled, the next call returns them."""
        self._steers = dict.fromkeys(self._steers, "step")  # on their way, they interrupt nothing any more
        await self._decided(TakeSteers(self.owner))
        steers, self._untold = self._untold, []
        return steers

    def next_id(self, prefix: str) -> str:
        """An id that the run has not had, in any attempt."""
        self._ids += 1
        return f"{prefix}-{self.owner.attempt}-{self._ids}"

    def add_usage(self, usage: Mapping[str, JSON]) -> None:
        """Merges usage."""
        merged = {**self._usage, **usage}
        if len(JSON_CODEC.encode(merged)) > _USAGE_BYTES:
            raise OutputTooLarge(f"the usage of a run holds at most {_USAGE_BYTES} bytes")
        self._usage = merged

    def scope(self, scope: InterruptScope | None) -> None:
        """Sets what a `now` steer interrupts."""
        self._scope = scope

    # The work

    async def _drive(self) -> None:
        """Calls the agent, again for every steer that interrupts it or is left at its end, and ends the run."""
        self._before = await self._session.conversation(self.owner.run_id)
        automatic = not self._agent.takes_steers
        while self.stage is Stage.CALLING:
            if automatic and self._steers:
                await self.take_steers()
                continue
            finish = await self._called()
            if finish is None:
                continue
            decision = await self._decided(finish)
            if decision.refused or not decision.steers:
                return

    async def _called(self) -> Finish | None:
        """Calls the agent once; how the run ends by it, or None where it was interrupted or stopped."""
        self._untold.clear()  # they stand in the messages
        run = self._current = Run(self)
        call = self._call = asyncio.create_task(self._agent_call(run), name=f"agent {self.owner.run_id}")
        try:
            await asyncio.wait({call})
        except asyncio.CancelledError:
            call.cancel()
            await asyncio.wait({call})
            raise
        self._call = self._current = None
        interrupted, run.over = run.over, True  # a task that it has left behind adds nothing to the next call
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        usage = self._usage or None
        if self.stage is Stage.CALLING and error is None:
            return Finish(self.owner, "completed", usage=usage, resume_on_steer=not self._agent.takes_steers)
        if self.stage is not Stage.CALLING or error is None or interrupted:
            if error is not None and not call.cancelled():
                _log.info("agent raised while it was stopped", **self._ids_for_log(), error=type(error).__name__)
            return None
        return Finish(self.owner, "failed", error=failure_of(error, **self._ids_for_log()), usage=usage)

    async def _agent_call(self, run: Run) -> None:
        result = self._agent.function(run)
        if isinstance(result, AsyncIterator):
            async with aclosing(cast("Any", result)):
                async for delta in result:
                    await run.text(delta)
        else:
            await result

    def _interrupt(self) -> None:
        if self.stage is not Stage.CALLING:
            return
        if self._agent.takes_steers:
            if self._scope is not None:
                self._scope.interrupt()
        elif self._call is not None:
            if self._current is not None:
                self._current.over = True  # from here on this call adds nothing
            self._call.cancel()
            self._room.set()

    def _apply(self, decision: Decision) -> None:
        applied = [record.event for record in decision.records if record.event["type"] == "steer.applied"]
        for steer, event in zip(decision.steers, applied, strict=True):
            self._answer.steer(steer, event.get("kept"))
        self._untold.extend(decision.steers)
        self._steers.clear()  # it was for all that waited

    # Output

    def _put(self, work: OwnedWork, *, size: int = 0, done: Callable[[Decision], None] | None = None) -> None:
        self._outputs.append(Output(work, size, done))
        self._session.produced(self)

    async def _decided(self, work: OwnedWork) -> Decision:
        decided: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()

        def done(decision: Decision) -> None:
            self._apply(decision)  # it is in the log, whether anybody still waits here or not
            if not decided.done():
                decided.set_result(decision)

        self._put(work, done=done)
        return await decided

    def _fold(self, kind: str, fields: Mapping[str, JSON]) -> None:
        number = part_number(self._answer, kind, fields.get("callId"))
        if number == len(self._answer.parts):
            if number >= _PARTS:
                raise AgentError("limit_reached", f"The answer has more than {_PARTS} parts.")
            self._answer.parts.append(OpenPart(kind, {}))
        self._answer.parts[number].fold(fields)

    def _count(self, size: int) -> None:
        self._produced_bytes += size
        if self._produced_bytes > self._settings.run_bytes:
            raise AgentError("limit_reached", f"The answer is longer than {self._settings.run_bytes} bytes.")

    def _waited(self, size: int) -> None:
        self._waiting_bytes += size
        self._waiting_chunks += 1

    @property
    def _full(self) -> bool:
        return (
            self._waiting_bytes > self._settings.waiting_bytes or self._waiting_chunks > self._settings.waiting_chunks
        )

    async def _until_room(self) -> None:
        while self._full and self.stage is Stage.CALLING:
            self._room.clear()
            await self._room.wait()

    # The end

    def _driven(self, task: asyncio.Task[None]) -> None:
        """Nothing of the agent is left. A task that never took its first step comes here too."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("working on a run failed", **self._ids_for_log(), exc_info=error)
            failure: Failure = {"code": "internal", "message": "The server failed. Its log has the reason."}
            self._put(Finish(self.owner, "failed", error=failure))
        if self.over:
            self._close(confirmed=True)

    def _grace_over(self) -> None:
        _log.warning("agent ignores cancellation", **self._ids_for_log(), grace_ms=self._settings.grace_ms)
        if self._call is not None:
            self._call.cancel()
        self._close(confirmed=False)

    def _close(self, *, confirmed: bool) -> None:
        if self.stage is Stage.ENDED:
            return
        due, self.stage = self.stage is Stage.SETTLING, Stage.ENDED
        if self._grace is not None:
            self._grace.cancel()
        if not due:
            self._session.worker_done(self)
            return
        started = self._stopped_at if self._stopped_at is not None else self._clock.monotonic()
        stopped_after_ms = round((self._clock.monotonic() - started) * 1000)
        self._put(
            Settle(self.owner, stopped_after_ms, confirmed, usage=self._usage or None),
            done=lambda _: self._session.worker_done(self),
        )

    def drop(self) -> None:
        """Stops the agent without a word in the log: the session or the process ends, the run is found lost later."""
        self.stage = Stage.ENDED
        if self._grace is not None:
            self._grace.cancel()
        if self._call is not None:
            self._call.cancel()
        self.task.cancel()

    def _ids_for_log(self) -> dict[str, Any]:
        return {"session": self._session.id, "run": self.owner.run_id, "attempt": self.owner.attempt}
