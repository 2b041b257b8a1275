"""How a client is told no: the `error` messages, and the end of a connection."""

from __future__ import annotations

from typing import Any, Final

from holdfast.protocol.close_codes import CloseCode
from holdfast.protocol.errors import CommandError

_MESSAGE_LENGTH: Final = 500
_PATH_LENGTH: Final = 256
"""Characters of an answer that may be the client's own words: a key or a tag of it can be a megabyte long."""


class Refused(Exception):
    """The connection is told `error`, if there is one, and closed with `code`. `reason` stands in the close frame."""

    def __init__(self, code: CloseCode, reason: str, error: CommandError | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.error = error


def error_message(error: CommandError, command_id: str | None = None) -> dict[str, Any]:
    """The `error` message of a refused command, or of a frame that is none."""
    message: dict[str, Any] = {
        "type": "error",
        "code": error.code,
        "message": _cut(str(error), _MESSAGE_LENGTH),
        "retryable": error.retryable,
    }
    if command_id is not None:
        message["id"] = command_id
    if error.path is not None:
        message["path"] = _cut(error.path, _PATH_LENGTH)
    if error.retry_after_ms is not None:
        message["retryAfterMs"] = error.retry_after_ms
    return message


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def unavailable(message: str = "the store does not answer") -> CommandError:
    """What could not be done in time; it may be done yet, and asking again is safe."""
    return CommandError("unavailable", message, retry_after_ms=1000)


def internal() -> CommandError:
    """A defect of the server, of which the client learns nothing but that it is one."""
    return CommandError("internal", "the server failed here; its log has the reason")
