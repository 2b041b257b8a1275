"""How a connection begins, by its hello and the token that came with it; and how its client is told no."""

from __future__ import annotations

from typing import Any, Final

from websockets.asyncio.server import ServerConnection

from holdfast.protocol.close_codes import CloseCode
from holdfast.protocol.codec import Codec
from holdfast.protocol.commands import Hello, parse_hello
from holdfast.protocol.errors import CommandError
from holdfast.server.clock import Clock, within
from holdfast.server.errors import AuthError
from holdfast.server.gateway.auth import Authenticator, Principal
from holdfast.server.gateway.frames import decoded
from holdfast.server.settings import GatewaySettings

_MESSAGE_LENGTH: Final = 500
_PATH_LENGTH: Final = 256
"""Characters of an error message that may be the client's own words: a key or a tag of it can be a megabyte long."""


class HandshakeError(Exception):
    """The connection is told `error`, if there is one, and closed with `code`. `reason` stands in the close frame."""

    def __init__(self, code: CloseCode, reason: str, error: CommandError | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.error = error


async def receive_hello(socket: ServerConnection, codec: Codec, *, clock: Clock, settings: GatewaySettings) -> Hello:
    """The client's first message. Raises HandshakeError where it is late or is no hello."""
    try:
        async with within(clock, settings.hello_seconds):
            received = await socket.recv()
    except TimeoutError:
        raise HandshakeError(CloseCode.HELLO_LATE, "no hello came") from None
    try:
        message = decoded(codec, received, settings.hello_bytes)
        if message.get("type") != "hello":
            raise CommandError("invalid", "the first message is hello", path="$.type")
        return parse_hello(message)
    except CommandError as error:
        raise HandshakeError(CloseCode.NOT_HELLO, "the first message was not a hello", error) from None


async def admit(
    socket: ServerConnection, hello: Hello, authenticator: Authenticator, *, clock: Clock, settings: GatewaySettings
) -> Principal:
    """Who sent this hello, by the token in it or in the request's header. Raises HandshakeError."""
    token = hello.token
    request = socket.request
    if token is None and request is not None:
        scheme, _, credentials = (request.headers.get_all("Authorization") or [""])[0].partition(" ")
        token = credentials.strip() if scheme.lower() == "bearer" else None
    try:
        return await authenticated(token, authenticator, clock=clock, seconds=settings.unavailable_seconds)
    except AuthError as error:
        code = CloseCode.FORBIDDEN if error.code == "forbidden" else CloseCode.TOKEN_REJECTED
        raise HandshakeError(code, error.code, CommandError(error.code, error.message)) from None
    except TimeoutError:
        late = unavailable("the token could not be checked in time")
        raise HandshakeError(CloseCode.STORE_UNAVAILABLE, late.code, late) from None


async def authenticated(token: str | None, authenticator: Authenticator, *, clock: Clock, seconds: float) -> Principal:
    """The principal of a token that is in force. Raises AuthError, and TimeoutError after `seconds`."""
    async with within(clock, seconds):
        principal = await authenticator.authenticate(token)
    if principal.expires_at is not None and principal.expires_at <= clock.now():
        raise AuthError("this token has expired")
    return principal


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
