"""The errors of the server.

HoldfastError
├── ConfigError                  the server cannot start like this
├── AuthError                    whoever connects is nobody here, or not allowed in
├── AgentError                   an agent cannot go on, in words for everyone
├── OutputTooLargeError          a piece of an agent's output is over its limit
├── ToolError                    a tool cannot do what it was asked, in words for the model and for everyone
├── SessionFailedError           a session's actor has ended by an error of its own
├── IllegalEventError            a log has an event that its run's state does not allow
└── StoreError                   a store cannot do what it was asked
    ├── StoreUnavailableError    the call did not happen, or its outcome is unknown
    ├── UnknownFormatError       what was written is in a format that this version does not know
    └── InvalidStoreUrlError     a store URL that cannot be understood
"""

from __future__ import annotations

from typing import Literal

from holdfast.protocol.errors import HoldfastError


class ConfigError(HoldfastError):
    """The server cannot start like this. The message says what to set."""

    code = "config"


class AuthError(HoldfastError):
    """Whoever connects is not let in: `unauthorized` for a token that is none, `forbidden` for a principal not let in.

    The message is told to the client; it never quotes the token.
    """

    def __init__(self, message: str, *, code: Literal["unauthorized", "forbidden"] = "unauthorized") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class AgentError(HoldfastError):
    """Ends the run as `failed` with `code` and `message`, both safe to show to everyone in the session.

    Neither holds a key, an upstream body, or anything of the traceback; of the cause, chained with `from`, the server's
    log names the type. They are cut at 64 and 2,000 characters. `retryable` says whether the same send may succeed
    later.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


class OutputTooLargeError(HoldfastError):
    """A piece of output is over the limit for its kind, at most one event (256 KiB). Nothing of it was added."""

    code = "too_large"


class SessionFailedError(HoldfastError):
    """The session's actor has ended by an error of its own. Its log is as it was; it can be opened anew."""

    code = "internal"
    retryable = True


class ToolError(HoldfastError):
    """Raised by a tool: its message is for the model and for everyone in the session. The run goes on."""

    code = "tool_error"


class IllegalEventError(HoldfastError):
    """An event that the table has no cell for: the log and this program disagree. Nothing was changed."""

    code = "internal"


class StoreError(HoldfastError):
    """A store cannot do what it was asked, and asking again will not help."""

    code = "internal"
    retryable = False


class StoreUnavailableError(StoreError):
    """The call did not happen, or its outcome is unknown. An append may be repeated with the same
    `batch_id`.
    """

    code = "unavailable"
    retryable = True


class UnknownFormatError(StoreError):
    """The log, or the file it lies in, was written in a format that this version does not know."""


class InvalidStoreUrlError(StoreError, ValueError):
    """A store URL that cannot be understood. The message lists the known forms."""

    code = "invalid"
