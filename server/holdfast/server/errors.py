"""The errors of the server, apart from those of a store.

HoldfastError
├── ConfigError      the server cannot start like this
├── AuthError        whoever connects is nobody here, or not allowed in
├── AgentError       an agent cannot go on, in words for everyone
├── OutputTooLarge   a piece of an agent's output is over its limit
└── SessionFailed    a session's actor has ended by an error of its own
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


class OutputTooLarge(HoldfastError):
    """A piece of output is over the limit for its kind, at most one event (256 KiB). Nothing of it was added."""

    code = "too_large"


class SessionFailed(HoldfastError):
    """The session's actor has ended by an error of its own. Its log is as it was; it can be opened anew."""

    code = "internal"
    retryable = True
