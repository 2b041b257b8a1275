"""Holdfast's Python client: `connect` opens a session, `holdfast.client.sync` does it without asyncio."""

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
from holdfast.client.opening import Opening, connect
from holdfast.client.outbox import HistoryPage
from holdfast.client.outcomes import AnswerOutcome, CancelOutcome, RunResult, SteerOutcome, WithdrawOutcome
from holdfast.client.phases import Status
from holdfast.client.run import Run
from holdfast.client.session import Session
from holdfast.client.submitted import Submitted
from holdfast.client.view import Reset
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
    "Session",
    "Status",
    "SteerOutcome",
    "Submitted",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownAgentError",
    "UnknownRunError",
    "WithdrawOutcome",
    "connect",
]
