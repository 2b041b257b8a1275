"""The log's entries as they travel and as they are stored: plain JSON objects, typed.

Events are dictionaries on every road: the registry makes them, the store keeps them, both codecs encode them as
they are. `EVENT` checks one that comes from somewhere less trusted than the own registry.
"""

from __future__ import annotations

from typing import Final, Literal, NotRequired, TypeAlias, get_args

from pydantic import JsonValue, TypeAdapter
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

RunStatus = Literal["queued", "running", "waiting", "ended"]
EndReason = Literal["completed", "cancelled", "failed", "expired", "lost"]
Cause = Literal["user", "superseded", "abandoned", "shutdown", "deadline", "prevented", "unknown_agent"]
RequestKind = Literal["approval", "input", "tool"]
RequestOutcome = Literal["answered", "expired", "withdrawn"]
EventType = Literal[
    "message",
    "run.queued",
    "run.started",
    "run.chunk",
    "run.requested",
    "run.resolved",
    "steer.accepted",
    "steer.applied",
    "steer.withdrawn",
    "run.ended",
    "run.settled",
]
Boundary = Literal["now", "step"]
IfEnded = Literal["return", "send"]
MessageStatus = Literal["streaming", "complete", "interrupted", "error"]

Part: TypeAlias = dict[str, JsonValue]
"""One part of a message: `kind` and the fields of that kind. Unknown kinds are kept as they are."""


class Position(TypedDict):
    """A place in a session's log: the event `seq` of the numbering `epoch`."""

    epoch: str
    seq: int


class Kept(TypedDict):
    """How much of one text or reasoning part is kept, in Unicode code points."""

    part: int
    length: int


class ReturnedSteer(TypedDict):
    """A steer that its run never took, handed back with the run's end."""

    steerId: str
    parts: list[Part]


class Failure(TypedDict):
    """Why a run failed, in words that are safe to show."""

    code: str
    message: str


class Request(TypedDict):
    """Something a run asks a person or a client for, with the fields of its kind."""

    id: str
    kind: RequestKind
    expiresAt: NotRequired[int]
    callId: NotRequired[str]
    name: NotRequired[str]
    input: NotRequired[JsonValue]
    prompt: NotRequired[str]
    schema: NotRequired[JsonValue]
    device: NotRequired[str]


class Message(TypedDict):
    """One message of the transcript, as a snapshot or a page carries it.

    `seq` is that of its `message` event, or of its run's first `run.started`. `continued` marks an entry that goes
    on with the one before it (a message too large for one server message).
    """

    id: str
    role: Literal["user", "assistant"]
    parts: list[Part]
    at: int
    seq: int
    after: str | None
    status: MessageStatus
    by: NotRequired[str]
    device: NotRequired[str]
    runId: NotRequired[str]
    reason: NotRequired[EndReason]
    metadata: NotRequired[dict[str, JsonValue]]
    continued: NotRequired[bool]


class UserMessage(TypedDict):
    """The message inside a `message` or a `run.queued` event."""

    id: str
    role: Literal["user"]
    parts: list[Part]
    by: str
    device: str
    at: int
    metadata: NotRequired[dict[str, JsonValue]]


class PendingSteer(TypedDict):
    """A steer accepted for a run and not applied yet."""

    steerId: str
    parts: list[Part]
    boundary: Boundary
    ifEnded: IfEnded
    by: str
    device: str
    seen: NotRequired[Position]


class RunInfo(TypedDict):
    """A run as a snapshot carries it. A prevented run has neither agent nor message.

    Of a run that has ended it says what its `run.ended` said, so that nobody who was away misses a steer that came
    back; `returned` is there only where steers did.
    """

    runId: str
    status: RunStatus
    by: str
    device: str
    requests: list[Request]
    steers: list[PendingSteer]
    agent: NotRequired[str]
    messageId: NotRequired[str]
    message: NotRequired[UserMessage]
    startedSeq: NotRequired[int]
    reason: NotRequired[EndReason]
    cause: NotRequired[str]
    error: NotRequired[Failure]
    usage: NotRequired[dict[str, JsonValue]]
    returned: NotRequired[list[ReturnedSteer]]


class _Event(TypedDict):
    seq: int
    at: int
    command: NotRequired[str]


class MessageEvent(_Event):
    """A user's message entered the transcript; its run starts with the next event."""

    type: Literal["message"]
    message: UserMessage
    runId: str
    after: str | None


class RunQueued(_Event):
    """A run waits for its turn, at `position` from 1; it carries its message until it starts."""

    type: Literal["run.queued"]
    runId: str
    agent: str
    by: str
    device: str
    message: UserMessage
    position: int


class RunStarted(_Event):
    """A run is worked on by `node`; `attempt` counts from 1."""

    type: Literal["run.started"]
    runId: str
    agent: str
    by: str
    device: str
    messageId: str
    after: str
    attempt: int
    node: str


class RunChunk(_Event):
    """A piece of a run's message: of part number `part`, in the fields of its `kind`.

    `from` makes it stand for all events from that seq to its own (adjacent deltas merged for a slow reader).
    """

    type: Literal["run.chunk"]
    runId: str
    part: int
    kind: str
    delta: NotRequired[str]
    callId: NotRequired[str]
    name: NotRequired[str]
    input: NotRequired[JsonValue]
    output: NotRequired[JsonValue]
    error: NotRequired[str]
    value: NotRequired[JsonValue]
    url: NotRequired[str]
    title: NotRequired[str]
    mediaType: NotRequired[str]
    done: NotRequired[Literal[True]]


class RunRequested(_Event):
    """A run asks for something and is `waiting` until it is resolved."""

    type: Literal["run.requested"]
    runId: str
    request: Request


class RunResolved(_Event):
    """A request was answered, ran out of time, or was taken back."""

    type: Literal["run.resolved"]
    runId: str
    requestId: str
    outcome: RequestOutcome
    value: NotRequired[JsonValue]
    by: NotRequired[str]
    device: NotRequired[str]


class SteerAccepted(_Event):
    """A steer belongs to the log now: it will be applied, withdrawn, returned or sent."""

    type: Literal["steer.accepted"]
    runId: str
    steerId: str
    parts: list[Part]
    boundary: Boundary
    ifEnded: IfEnded
    by: str
    device: str
    seen: NotRequired[Position]


class SteerApplied(_Event):
    """The agent gets the steer from here on. `kept` cuts what the sender of a `now` steer had not seen."""

    type: Literal["steer.applied"]
    runId: str
    steerId: str
    seen: NotRequired[Position]
    kept: NotRequired[list[Kept]]


class SteerWithdrawn(_Event):
    """The steer was taken back before it was applied."""

    type: Literal["steer.withdrawn"]
    runId: str
    steerId: str


class RunEnded(_Event):
    """The one terminal of a run; nothing of the run follows but one `run.settled` where it is due."""

    type: Literal["run.ended"]
    runId: str
    reason: EndReason
    returned: list[ReturnedSteer]
    cause: NotRequired[str]
    by: NotRequired[str]
    device: NotRequired[str]
    seen: NotRequired[Position]
    kept: NotRequired[list[Kept]]
    error: NotRequired[Failure]
    usage: NotRequired[dict[str, JsonValue]]


class RunSettled(_Event):
    """The work behind a cancelled or expired run has stopped, or could not be seen to stop."""

    type: Literal["run.settled"]
    runId: str
    stoppedAfterMs: int
    confirmed: bool
    usage: NotRequired[dict[str, JsonValue]]


Event: TypeAlias = (
    MessageEvent
    | RunQueued
    | RunStarted
    | RunChunk
    | RunRequested
    | RunResolved
    | SteerAccepted
    | SteerApplied
    | SteerWithdrawn
    | RunEnded
    | RunSettled
)

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
"""Checks an event that comes from outside. Unknown types are not events of this version."""

EVENT_TYPES: Final = frozenset[str](get_args(EventType))
