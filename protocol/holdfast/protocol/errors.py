"""The one root of all of Holdfast's exceptions, and the errors that travel.

HoldfastError
└── CommandError         a command that was refused
    └── MalformedError   a frame that is no message
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal, cast

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
"""The codes of an `error` message."""


class Retry(Enum):
    """Whether the same command, sent again unchanged, may succeed."""

    NO = "no"
    LATER = "later"
    """By whoever gave the command, when what was in its way is over."""
    ITSELF = "itself"
    """By the client itself, after a while."""


RETRIES: Final[Mapping[ErrorCode, Retry]] = {
    "malformed": Retry.NO,
    "invalid": Retry.NO,
    "unknown_type": Retry.NO,
    "unauthorized": Retry.NO,
    "forbidden": Retry.NO,
    "conflict": Retry.NO,
    "busy": Retry.LATER,
    "unknown_agent": Retry.NO,
    "rate_limited": Retry.ITSELF,
    "limit_reached": Retry.LATER,
    "too_large": Retry.NO,
    "unavailable": Retry.ITSELF,
    "draining": Retry.ITSELF,
    "internal": Retry.NO,
}


def retry_of(code: str) -> Retry:
    """Whether a command that was refused so is sent again; NO for a code of a newer server, which may say otherwise."""
    return RETRIES.get(cast("ErrorCode", code), Retry.NO)


class HoldfastError(Exception):
    """The root of every exception that Holdfast raises on purpose.

    `code` is one machine word, `retryable` whether the same call may succeed later, and `str(error)` a sentence
    for the reader.
    """

    code: str = "internal"
    retryable: bool = False


class CommandError(HoldfastError):
    """A command that was refused: what an `error` message says, on either side of the wire.

    `path` names the field at fault (`$.runId`), `retry_after_ms` when to try again, where these are known. `retryable`
    is what the code says where it is not given.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        path: str | None = None,
        retryable: bool | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path
        self.retryable = retry_of(code) is not Retry.NO if retryable is None else retryable
        self.retry_after_ms = retry_after_ms


class MalformedError(CommandError):
    """A frame that is not a message: undecodable, or holding a value that JSON does not know."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__("malformed", message, path=path)
