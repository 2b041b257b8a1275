"""The task that works on one run here: it calls the agent, takes its output, stops it, and says when it has stopped.

    CALLING ──halt──► HALTED
       │                │
       └─────ended──────┴─┬─an end that stops it─► SETTLING ─┬─agent has stopped, or its grace is over─► ENDED
                          └─any other end────────► LEAVING ──┘

The session's actor owns the log; this owns the agent's task. A cancel is entered by the actor; what is cancelled here
is only the agent, and never the writing of what it has said before.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

import structlog

from holdfast.protocol.codec import JSON_CODEC
from holdfast.protocol.ends import end_of
from holdfast.protocol.events import Failure, Message, PendingSteer, Request, RunInfo
from holdfast.protocol.messages import OpenMessage, OpenPart
from holdfast.protocol.values import JSON, MAX_INTEGER
from holdfast.server.agent_tasks import AgentTasks
from holdfast.server.clock import Clock, Timer
from holdfast.server.errors import AgentError, OutputTooLargeError
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
from holdfast.server.session.failure import failure_of
from holdfast.server.session.ports import AgentCall, AgentPort, Answer, InterruptScope, Output, RunDetails, SessionPort
from holdfast.server.settings import SessionSettings

_TEXT_LENGTH: Final = 40_000
"""Code points of text in one event: under 256 KiB in any encoding."""
_OPEN_REQUESTS: Final = 8
_OPEN_REQUESTS_BYTES: Final = 256 * 1024
"""Of the open requests of a run: with the steers that wait in it they fit into one message, in msgpack too."""
_USAGE_BYTES: Final = 16 * 1024
_PARTS: Final = 2_048
"""Of one message: what is kept of all of them can be told in one event, with the steers that come back."""
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


@dataclass(slots=True, eq=False)
class _Asked:
    """A request whose answer a task of the agent waits for."""

    waiter: asyncio.Future[Answer]
    task: asyncio.Task[Any] | None
    size: int
    """Bytes of JSON."""
    taken_back: bool = False
    """Whether it is being withdrawn, so that a steer can interrupt the task."""


class RunWorker:
    """Works on one attempt of one run. Created by the node when its `run.started` is in the log.

    The agent is called when `after` have ended: what is left here of earlier attempts. `ignored` is called, once, where
    the agent has ignored its cancellation for all of its grace.
    """

    def __init__(
        self,
        session: SessionPort,
        run: RunState,
        agent: AgentPort,
        *,
        clock: Clock,
        settings: SessionSettings,
        after: Iterable[asyncio.Task[None]] = (),
        ignored: Callable[[], None] = lambda: None,
    ) -> None:
        self.owner = Owner(run.run_id, run.node, run.attempt)
        self.info = RunDetails(run.run_id, run.agent, run.by, run.device, run.attempt, run.terms.get("metadata", {}))
        self.stage = Stage.CALLING
        self._session = session
        self._agent = agent
        self._clock = clock
        self._settings = settings
        assert run.message is not None, "a run that was started has a message"
        self._outline = OpenMessage({}, [OpenPart(part.kind, {}, done=True) for part in run.message.parts])
        """The parts of the message, without their text, as they are with all that was written."""
        self._open_kind: str | None = None
        """Of text that goes on in the last of them; None where that has to be looked up."""
        self._before: list[Message] = []
        self._outputs: list[Output] = []
        self._taken: list[Output] = []
        """Output that is on its way into the log."""
        self._waiting_bytes = 0
        self._waiting_chunks = 0
        self._long = asyncio.Lock()
        """Held by the writer of a text so long that it comes in pieces: nothing comes in between."""
        self._room = asyncio.Event()
        """Set, for everyone who waits, when there may be room again."""
        self._produced_bytes = sum(len(part.text.encode()) for part in run.message.parts)
        self._usage: dict[str, JSON] = {}
        self._ids = 0
        self._requests: dict[str, _Asked] = {}
        self._answered: set[asyncio.Future[Answer]] = set()
        """Answers on their way to the task that waits for them."""
        self._asked: set[str] = set()
        """Requests that came into the log, until it was seen that they are no longer open."""
        self._steers: dict[str, str] = {}
        """Boundaries of the steers that were accepted and not taken, by steer id."""
        self._untold: list[PendingSteer] = []
        """Steers that were applied for a `take_steers`, until one returns them: whoever waits may be cancelled."""
        self._tasks = AgentTasks(self._exited, **self._ids_for_log())
        self._exit: BaseException | None = None
        """What would have ended the process, had it left the agent: it ends the run."""
        self._ignored: Callable[[], None] | None = ignored
        self._call: asyncio.Task[None] | None = None
        self._current: AgentCall | None = None
        self._scope: InterruptScope | None = None
        self._stopped_at: float | None = None
        self._grace: Timer | None = None
        self._driving = True
        self.task = asyncio.create_task(self._main(list(after)), name=f"run {run.run_id}")
        """Ends when nothing of the agent is left."""
        self.task.add_done_callback(self._driven)

    # What the session's actor calls

    def take(self) -> list[Output]:
        """All output that waits, in order."""
        self._taken, self._outputs = self._outputs, []
        return self._taken

    def committed(self, outputs: Sequence[Output]) -> None:
        """What `take` gave is in the log, or was refused: there is room again."""
        self._taken = []
        for output in outputs:
            self._waiting_bytes -= output.size
            if output.done is not None:
                output.tell()
            if output.decision is not None and output.decision.steers:
                self._apply(output.decision)
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
    def waits(self) -> bool:
        """Whether the agent waits for a person or a client: it is in no hurry, and loses nothing by being left."""
        return bool(self._asked) and self.stage is Stage.CALLING

    @property
    def resumable(self) -> bool:
        """Whether the run goes on where this process leaves it: the next one calls its agent again."""
        return self._agent.restartable and self.stage is Stage.CALLING

    @property
    def over(self) -> bool:
        """Whether it was told that the run has ended: its agent was stopped for good."""
        return self.stage not in (Stage.CALLING, Stage.HALTED)

    def ended(self, event: Mapping[str, Any] | None) -> None:
        """The run has ended, by this event or (None) for this worker only: its agent stops, or has its grace to.

        After an end that stops the agent the settling is due from here. Told again, it does nothing.
        """
        if self.over:
            return
        self.halt()
        due = event is not None and end_of(event["reason"]).settles
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
        asked = self._requests.pop(event["requestId"], None)
        if asked is not None and not (asked.taken_back and event["outcome"] == "withdrawn"):
            self._tell(asked, Answer(event["outcome"], event.get("value"), event.get("by"), event.get("device")))

    def reconcile(self, view: RunInfo) -> None:
        """Events were missed or lost: requests that are gone are withdrawn, steers that wait interrupt."""
        still_open = {request["id"] for request in view["requests"]}
        gone, self._asked = self._asked - still_open, self._asked & still_open
        for request_id in gone & self._requests.keys():
            self._tell(self._requests.pop(request_id), Answer("withdrawn"))
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
        """The transcript before the run, and its message: what the log has of it, and behind that what it will have."""
        in_log = self._session.message(self.owner.run_id)
        if in_log is None:
            return list(self._before)
        message = in_log.copy()
        for output in (*self._taken, *self._outputs):
            if isinstance(output.work, Chunk):
                _fold(message, output.work)
        return [*self._before, message.view()] if message.parts else list(self._before)

    def put_text(self, kind: Literal["text", "reasoning"], delta: str) -> Awaitable[None] | None:
        """Takes text, which becomes one chunk with adjacent text that still waits; empty text adds nothing.

        What it returns, if anything, is to be awaited at once. Long text is taken in pieces, and waits for room behind
        each; cancelled, it is left where it was.
        """
        if not delta:
            return None
        if len(delta) > _TEXT_LENGTH or self._long.locked():
            return self._put_pieces(kind, delta)
        self._take_text(kind, delta)
        return self._until_room() if self._full else None

    async def _put_pieces(self, kind: Literal["text", "reasoning"], text: str) -> None:
        call = self._current
        async with self._long:
            for start in range(0, len(text), _TEXT_LENGTH):
                self._goes_on(call)
                self._take_text(kind, text[start : start + _TEXT_LENGTH])
                await self._until_room()

    async def _behind_long(self) -> None:
        call = self._current
        async with self._long:
            self._goes_on(call)

    def _goes_on(self, call: AgentCall | None) -> None:
        """Tells a task of the agent that has waited whether it was stopped meanwhile, or its call interrupted."""
        if call is None or call.over or self.stopping:
            raise asyncio.CancelledError

    def _take_text(self, kind: Literal["text", "reasoning"], piece: str) -> None:
        size = len(piece) if piece.isascii() else len(piece.encode())
        self._count(size)
        if kind != self._open_kind:
            self._enter(kind, {})
            self._open_kind = kind
        self._waiting_bytes += size
        self._waiting_chunks += 1
        if self._outputs:
            last = self._outputs[-1]
            if isinstance(last.work, Chunk) and last.work.event["kind"] == kind:
                event = last.work.event
                if len(event["delta"]) + len(piece) <= _TEXT_LENGTH:
                    event["delta"] += piece
                    last.size += size
                    return
        self._put(Chunk.of_text(self.owner, kind, piece), size=size)

    async def write(self, kind: str, fields: dict[str, JSON]) -> None:
        """Takes a chunk of another kind."""
        if self._long.locked():
            await self._behind_long()
        size = sum(len(value) if isinstance(value, str) else 64 for value in fields.values())
        self._count(size)
        self._enter(kind, fields)
        self._open_kind = None
        self._waiting_bytes += size
        self._waiting_chunks += 1
        self._put(Chunk.of(self.owner, kind, fields), size=size)
        await self._until_room()

    async def request(self, request: Request, expires_ms: int | None) -> Answer:
        """Opens a request, waits for what becomes of it, and takes it back when the wait is cancelled."""
        if len(self._requests) >= _OPEN_REQUESTS:
            raise AgentError("limit_reached", f"A run asks for at most {_OPEN_REQUESTS} things at once.")
        size = len(JSON_CODEC.encode(request))
        if size + sum(asked.size for asked in self._requests.values()) > _OPEN_REQUESTS_BYTES:
            raise AgentError("limit_reached", f"A run asks for at most {_OPEN_REQUESTS_BYTES} bytes at once.")
        if expires_ms is not None:
            # Agents give floats too, and infinity.
            request["expiresAt"] = int(min(self._clock.now() + max(expires_ms, 0), MAX_INTEGER))
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._requests[request["id"]] = _Asked(waiter, asyncio.current_task(), size)
        self._put(OpenRequest(self.owner, request), done=lambda _: self._asked.add(request["id"]))
        try:
            return await waiter
        finally:
            self._answered.discard(waiter)
            # Nobody waits any more: it is taken back, unless the end of the run closes it.
            if self._requests.pop(request["id"], None) is not None and not self.stopping:
                self._put(RetractRequest(self.owner, request["id"]))

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
            raise OutputTooLargeError(f"the usage of a run holds at most {_USAGE_BYTES} bytes")
        self._usage = merged

    def scope(self, scope: InterruptScope | None) -> None:
        """Sets what a `now` steer interrupts."""
        self._scope = scope

    # The work

    async def _main(self, after: Sequence[asyncio.Task[None]]) -> None:
        try:
            while not all(task.done() for task in after):
                await asyncio.wait(after)
            await self._drive()
        finally:
            self._driving = False
            await self._tasks.ended()

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
        current, work = self._agent.call(self)
        self._current = current
        call = self._call = self._tasks.start(work, name=f"agent {self.owner.run_id}")
        await asyncio.wait({call})
        self._call = self._current = None
        interrupted, current.over = current.over, True  # a task that it has left behind adds nothing to the next call
        self._tasks.leave_behind()
        raised = asyncio.CancelledError() if call.cancelled() else call.exception()
        error = self._exit or raised
        usage = self._usage or None
        if self.stage is Stage.CALLING and error is None:
            return Finish(self.owner, "completed", usage=usage, resume_on_steer=not self._agent.takes_steers)
        if self.stage is not Stage.CALLING or error is None or (interrupted and self._exit is None):
            if error is not None and not call.cancelled():
                _log.info("agent raised while it was stopped", **self._ids_for_log(), error=type(error).__name__)
            return None
        return Finish(self.owner, "failed", error=failure_of(error, **self._ids_for_log()), usage=usage)

    def _exited(self, error: BaseException) -> None:
        """A task of the agent raised what would have ended the process: the run ends by it, where a call goes on."""
        call = self._call
        if call is None or self.stage is not Stage.CALLING or self._exit is not None:
            _log.error("agent raised", **self._ids_for_log(), exc_info=error)
            return
        self._exit = error
        # A cancellation that meets the very task that raises this would be lost.
        asyncio.get_running_loop().call_soon(call.cancel)

    def _interrupt(self) -> None:
        """Ends the call, or the block of one that takes steers itself, while a steer waits for it.

        An answer that was accepted reaches the agent first. What the agent waits for is taken back before, in the log:
        who answers later is told that it is too late.
        """
        scope = self._scope
        if self.stage is not Stage.CALLING or not self.steers_pending:
            return
        if self._agent.takes_steers and scope is None:
            return
        if self._answered:
            asyncio.get_running_loop().call_soon(self._interrupt)
            return
        asked = {key: item for key, item in self._requests.items() if scope is None or item.task is scope.task}
        for request_id, item in asked.items():
            if not item.taken_back:
                item.taken_back = True
                self._put(RetractRequest(self.owner, request_id), done=functools.partial(self._taken_back, item))
        if asked:
            return
        if scope is not None:
            scope.interrupt()
        elif self._call is not None:
            if self._current is not None:
                self._current.over = True  # from here on this call adds nothing
            self._call.cancel()
            self._room.set()

    def _taken_back(self, asked: _Asked, _: Decision) -> None:
        self._interrupt()
        self._tell(asked, Answer("withdrawn"))  # where it was not interrupted: the steer is gone

    def _tell(self, asked: _Asked, answer: Answer) -> None:
        if not asked.waiter.done():
            self._answered.add(asked.waiter)
            asked.waiter.set_result(answer)

    def _apply(self, decision: Decision) -> None:
        for steer in decision.steers:
            self._outline.steer(steer, None)
        self._open_kind = None
        self._untold.extend(decision.steers)
        self._steers.clear()  # it was for all that waited

    # Output

    def _put(self, work: OwnedWork, *, size: int = 0, done: Callable[[Decision], None] | None = None) -> None:
        self._outputs.append(Output(work, size, done))
        self._session.produced(self)

    async def _decided(self, work: OwnedWork) -> Decision:
        decided: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()

        def done(decision: Decision) -> None:
            if not decided.done():
                decided.set_result(decision)

        self._put(work, done=done)
        return await decided

    def _enter(self, kind: str, fields: Mapping[str, JSON]) -> None:
        """Takes note of the part that this will be in."""
        parts = self._outline.parts
        number = part_number(self._outline, kind, fields.get("callId"))
        if number == len(parts):
            if number >= _PARTS:
                raise AgentError("limit_reached", f"The message has more than {_PARTS} parts.")
            parts.append(OpenPart(kind, {}))
        if "callId" in fields:
            parts[number].fields["callId"] = fields["callId"]
        if fields.get("done"):
            parts[number].done = True

    def _count(self, size: int) -> None:
        self._produced_bytes += size
        if self._produced_bytes > self._settings.run_bytes:
            raise AgentError("limit_reached", f"The message is longer than {self._settings.run_bytes} bytes.")

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
        self._tasks.release()
        if self._grace is not None:
            self._grace.cancel()
        error = None if task.cancelled() else task.exception()
        if task.cancelled() and self.stage is Stage.CALLING:  # by nobody who may: code of an agent can, on many a loop
            error = asyncio.CancelledError()
        if error is not None:
            _log.error("working on a run failed", **self._ids_for_log(), exc_info=error)
            failure: Failure = {"code": "internal", "message": "The server failed. Its log has the reason."}
            self._put(Finish(self.owner, "failed", error=failure))
        if self.over:
            self._close(confirmed=True)

    def _grace_over(self) -> None:
        """Nobody waits for it any more. It is cancelled again, and after as much time again it is closed."""
        self._give_up()
        self._tasks.cancel()
        self._grace = self._clock.call_later(self._settings.grace_ms / 1000, self.abandon)
        self._close(confirmed=False)

    def _give_up(self) -> None:
        """Says and counts, once, that the agent ignores its cancellation."""
        ignored, self._ignored = self._ignored, None
        if ignored is not None:
            _log.warning("agent ignores cancellation", **self._ids_for_log(), grace_ms=self._settings.grace_ms)
            ignored()

    def _close(self, *, confirmed: bool) -> None:
        if self.stage is Stage.ENDED:
            return
        due, self.stage = self.stage is Stage.SETTLING, Stage.ENDED
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
        if self.task.done():
            return
        if self._grace is not None:
            self._grace.cancel()
        self._grace = self._clock.call_later(self._settings.grace_ms / 1000, self.abandon)
        self._tasks.cancel()
        if self._driving:
            self.task.cancel()

    def abandon(self) -> None:
        """Ends what is left of the agent, whatever it does: it is closed where it waits, and not resumed again."""
        if not self.task.done():
            self._give_up()
            self._tasks.close()

    def _ids_for_log(self) -> dict[str, Any]:
        return {"session": self._session.id, "run": self.owner.run_id, "attempt": self.owner.attempt}


def _fold(message: OpenMessage, chunk: Chunk) -> None:
    """What the registry's fold makes of it."""
    event = chunk.event
    number = part_number(message, event["kind"], event.get("callId"))
    if number == len(message.parts):
        message.parts.append(OpenPart(event["kind"], {}))
    message.parts[number].fold(event)
