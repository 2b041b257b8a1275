"""Holdfast's Python client: `connect` opens a session, `holdfast.client.sync` does it without asyncio."""

from holdfast.client.client import Encoding
from holdfast.client.errors import (
    BusyError,
    ClientClosedError,
    ConflictError,
    ConnectionClosedError,
    ConnectionFailedError,
    DrainingError,
    ForbiddenError,
    InvalidCommandError,
    LimitReachedError,
    OutboxFullError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnknownAgentError,
    UnknownRunError,
)
from holdfast.client.feed import Feed, Lagged
from holdfast.client.link import Token
from holdfast.client.opening import Opening, connect
from holdfast.client.outbox import HistoryPage
from holdfast.client.outcomes import AnswerOutcome, CancelOutcome, RunResult, SteerOutcome, WithdrawOutcome
from holdfast.client.phases import Status
from holdfast.client.run import Run
from holdfast.client.session import Session
from holdfast.client.submitted import Submitted
from holdfast.client.view import Reset, RunState
from holdfast.protocol import CommandError, HoldfastError

__all__ = [
    "AnswerOutcome",
    "BusyError",
    "CancelOutcome",
    "ClientClosedError",
    "CommandError",
    "ConflictError",
    "ConnectionClosedError",
    "ConnectionFailedError",
    "DrainingError",
    "Encoding",
    "Feed",
    "ForbiddenError",
    "HistoryPage",
    "HoldfastError",
    "InvalidCommandError",
    "Lagged",
    "LimitReachedError",
    "Opening",
    "OutboxFullError",
    "RateLimitedError",
    "Reset",
    "Run",
    "RunResult",
    "RunState",
    "Session",
    "Status",
    "SteerOutcome",
    "Submitted",
    "Token",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownAgentError",
    "UnknownRunError",
    "WithdrawOutcome",
    "connect",
]
