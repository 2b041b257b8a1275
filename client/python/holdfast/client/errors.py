"""What the client raises: each has a `code`, `retryable` and a sentence.

HoldfastError
├── ConnectionFailedError    no connection could be opened
├── ConnectionClosedError    the server closed the connection for good
├── ClientClosedError        this program closed the client
├── OutboxFullError          too many commands wait for their replies
├── UnknownRunError          the session knows no such run
└── CommandError             the server refused the command, or it is none
    ├── InvalidCommandError
    ├── UnauthorizedError
    ├── ForbiddenError
    ├── ConflictError
    ├── BusyError
    ├── UnknownAgentError
    ├── RateLimitedError
    ├── LimitReachedError
    ├── TooLargeError
    ├── UnavailableError
    └── DrainingError
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from holdfast.protocol import CommandError, Error, HoldfastError
from holdfast.protocol.errors import ErrorCode


class ConnectionFailedError(HoldfastError):
    """No connection could be opened: the server is not there, or it refused the upgrade.

    `status` is the HTTP status of a refusal, None where there was no reply.
    """

    code = "connection_failed"
    retryable = True

    def __init__(self, message: str, *, status: int | None = None, retryable: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        if status in (401, 403):
            self.code = "unauthorized"


class ConnectionClosedError(HoldfastError):
    """The server closed the connection for good, with a close code that says not to come back.

    `close_code` is the WebSocket close code, `reason` the server's words.
    """

    code = "connection_closed"

    def __init__(self, close_code: int, reason: str = "") -> None:
        super().__init__(f"The server closed the connection for good ({close_code}{reason and f': {reason}'}).")
        self.close_code = close_code
        self.reason = reason


class ClientClosedError(HoldfastError):
    """This client was closed by its own program. Runs are not touched by that."""

    code = "client_closed"

    def __init__(self) -> None:
        super().__init__("This client is closed. Its runs go on; connect again to follow them.")


class OutboxFullError(HoldfastError):
    """Too much waits for an acknowledgement: the command was not taken and is safe to issue again later."""

    code = "outbox_full"
    retryable = True


class UnknownRunError(HoldfastError):
    """Neither the log nor the history of the session knows the run."""

    code = "unknown_run"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"The session knows no run {run_id!r}.")
        self.run_id = run_id


class InvalidCommandError(CommandError):
    """The command is not one of this protocol; `path` names the field at fault."""


class UnauthorizedError(CommandError):
    """The token does not stand for anybody."""


class ForbiddenError(CommandError):
    """The token does not allow this."""


class ConflictError(CommandError):
    """The id was used before for something else."""


class BusyError(CommandError):
    """The session has a main run and the command said `reject`."""


class UnknownAgentError(CommandError):
    """The server has no agent of that name."""


class RateLimitedError(CommandError):
    """Too many commands; the client has already waited and tried again."""


class LimitReachedError(CommandError):
    """A bound of the session or the principal: runs at once, the length of the queue."""


class TooLargeError(CommandError):
    """The command is larger than the server takes; it was not sent."""


class UnavailableError(CommandError):
    """The server could not reach its store in time; the client has already tried again."""


class DrainingError(CommandError):
    """The server takes no new runs because it is shutting down; the client has already tried again."""


_REFUSALS: Final[Mapping[ErrorCode, type[CommandError]]] = {
    "malformed": InvalidCommandError,
    "invalid": InvalidCommandError,
    "unknown_type": InvalidCommandError,
    "unauthorized": UnauthorizedError,
    "forbidden": ForbiddenError,
    "conflict": ConflictError,
    "busy": BusyError,
    "unknown_agent": UnknownAgentError,
    "rate_limited": RateLimitedError,
    "limit_reached": LimitReachedError,
    "too_large": TooLargeError,
    "unavailable": UnavailableError,
    "draining": DrainingError,
    "internal": CommandError,
}


def refusal(error: Error) -> CommandError:
    """The exception for an `error` message; a plain CommandError where the code has no class of its own."""
    return _REFUSALS.get(cast("ErrorCode", error["code"]), CommandError)(
        error["code"],
        error["message"],
        path=error.get("path"),
        retryable=error["retryable"],
        retry_after_ms=error.get("retryAfterMs"),
    )
