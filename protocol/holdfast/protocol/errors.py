"""The one root of all of Holdfast's exceptions, and the errors that travel."""

from __future__ import annotations

from typing import Literal

ErrorCode = Literal[
    "malformed",
    "invalid",
    "unknown_type",
    "unauthorized",
    "forbidden",
    "conflict",
    "busy",
    "unknown_agent",
    "rate_limited",
    "limit_reached",
    "too_large",
    "unavailable",
    "draining",
    "internal",
]
"""The codes of an `error` message; clients treat any other as not retryable unless it says so."""


class HoldfastError(Exception):
    """The root of every exception that Holdfast raises on purpose.

    `code` is one machine word, `retryable` whether the same call may succeed later, and `str(error)` a sentence
    for the reader.
    """

    code: str = "internal"
    retryable: bool = False


class CommandError(HoldfastError):
    """A command that was refused: what an `error` message says, on either side of the wire.

    `path` names the field at fault (`$.runId`), `retry_after_ms` when to try again, where these are known.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        path: str | None = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms


class MalformedError(CommandError):
    """A frame that is not a message: undecodable, or holding a value that JSON does not know."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__("malformed", message, path=path)
