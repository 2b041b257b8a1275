"""What an agent raises when it cannot go on, in words that everyone in the session may read."""

from __future__ import annotations

from holdfast.protocol.errors import HoldfastError


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
