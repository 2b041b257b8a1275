"""What a server sends beside the log: replies, snapshots and the connection's own business."""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict

from holdfast.protocol.events import EndReason, Event, Message, RunInfo

Resume = Literal["snapshot", "tail", "reset"]
OutcomeOfSend = Literal["started", "queued", "steered", "ended"]
OutcomeOfCancel = Literal["cancelled", "already_ended", "unknown_run", "withdrawn", "steered"]
OutcomeOfSteer = Literal["accepted", "already_ended", "unknown_run", "sent"]
OutcomeOfWithdraw = Literal["withdrawn", "already_applied", "already_ended", "unknown_steer"]
OutcomeOfAnswer = Literal["accepted", "already_answered", "expired", "already_ended", "unknown_request"]
OutcomeOfAuth = Literal["refreshed"]
OutcomeOfPing = Literal["pong"]
Outcome: TypeAlias = (
    OutcomeOfSend
    | OutcomeOfCancel
    | OutcomeOfSteer
    | OutcomeOfWithdraw
    | OutcomeOfAnswer
    | OutcomeOfAuth
    | OutcomeOfPing
)
"""What an `ack` says that its command came to; `history` has none."""


class Limits(TypedDict):
    """The bounds a client has to know, in bytes and counts."""

    frameBytes: int
    eventBytes: int
    messageBytes: int
    commandItems: int
    commandValues: int


class Welcome(TypedDict):
    """The reply to `hello`. `head` is the store's, read for this hello."""

    type: Literal["welcome"]
    session: str
    connection: str
    principal: str
    device: str
    at: int
    epoch: str
    head: int
    resume: Resume
    heartbeatMs: int
    features: list[str]
    limits: Limits
    expiresAt: NotRequired[int]


class Snapshot(TypedDict):
    """The session at `seq`; several of them may make one, the one with `last` ends it."""

    type: Literal["snapshot"]
    epoch: str
    seq: int
    at: int
    reset: bool
    messages: list[Message]
    runs: list[RunInfo]
    more: bool
    last: bool


class Page(TypedDict):
    """Older messages, ascending, in reply to `history`."""

    type: Literal["page"]
    id: str
    messages: list[Message]
    more: bool
    last: bool


class CaughtUp(TypedDict):
    """Everything up to the head at the time of `hello` has been sent."""

    type: Literal["caughtUp"]
    seq: int
    at: int


class Ack(TypedDict):
    """The outcome of a command. `seq` is the last event it added, or the one it speaks of."""

    type: Literal["ack"]
    id: str
    outcome: Outcome
    runId: NotRequired[str]
    runIds: NotRequired[list[str]]
    seq: NotRequired[int]
    position: NotRequired[int]
    reason: NotRequired[EndReason]
    cause: NotRequired[str]
    duplicate: NotRequired[Literal[True]]
    expiresAt: NotRequired[int]
    head: NotRequired[int]


class Error(TypedDict):
    """A command refused, or a frame that is none (then without `id`)."""

    type: Literal["error"]
    code: str
    message: str
    retryable: bool
    id: NotRequired[str]
    path: NotRequired[str]
    retryAfterMs: NotRequired[int]


class Heartbeat(TypedDict):
    """A sign of life with the seq this connection has been sent up to; the client sends `pong` back."""

    type: Literal["ping"]
    head: int


class Goaway(TypedDict):
    """The connection closes soon; come back after `reconnectAfterMs`."""

    type: Literal["goaway"]
    reason: str
    reconnectAfterMs: int


class PresentDevice(TypedDict):
    """One connection that watches the session."""

    connection: str
    device: str
    principal: str
    since: int


class Presence(TypedDict):
    """Who watches: at most 50 of the `total` connections."""

    type: Literal["presence"]
    devices: list[PresentDevice]
    total: int


Control: TypeAlias = Welcome | Snapshot | Page | CaughtUp | Ack | Error | Heartbeat | Goaway | Presence
ServerMessage: TypeAlias = Control | Event
