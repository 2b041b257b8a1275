"""The first step of a connection: its hello, and the token that came with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection

from holdfast.protocol.close_codes import CloseCode
from holdfast.protocol.codec import COMMAND_ITEMS, COMMAND_VALUES, Codec
from holdfast.protocol.commands import Hello, parse_hello
from holdfast.protocol.errors import CommandError, MalformedError
from holdfast.server.clock import Clock
from holdfast.server.errors import AuthError
from holdfast.server.gateway.auth import Authenticator, Principal
from holdfast.server.gateway.rates import GatewaySettings
from holdfast.server.gateway.refusals import Refused, unavailable


@asynccontextmanager
async def within(clock: Clock, seconds: float) -> AsyncGenerator[None, None]:
    """Raises TimeoutError when what is inside takes longer than `seconds` of this clock."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = clock.call_later(seconds, lambda: limit.reschedule(loop.time()))
        try:
            yield
        finally:
            timer.cancel()


def decoded(codec: Codec, received: str | bytes, limit: int) -> Mapping[str, Any]:
    """The message in a client's frame of at most `limit` bytes. Raises CommandError."""
    size = len(received)
    if isinstance(received, str) and not received.isascii():
        size = len(received.encode())
    if size > limit:
        raise CommandError("too_large", f"a frame has at most {limit} bytes")
    message = codec.decode(received, max_items=COMMAND_ITEMS, max_values=COMMAND_VALUES)
    if not isinstance(message, dict):
        raise MalformedError("a message is an object", path="$")
    return message


async def receive_hello(socket: ServerConnection, codec: Codec, *, clock: Clock, settings: GatewaySettings) -> Hello:
    """The client's first message. Raises Refused where it is late or is no hello."""
    try:
        async with within(clock, settings.hello_seconds):
            received = await socket.recv()
    except TimeoutError:
        raise Refused(CloseCode.HELLO_LATE, "no hello came") from None
    try:
        message = decoded(codec, received, settings.hello_bytes)
        if message.get("type") != "hello":
            raise CommandError("invalid", "the first message is hello", path="$.type")
        return parse_hello(message)
    except CommandError as error:
        raise Refused(CloseCode.NOT_HELLO, "the first message was not a hello", error) from None


async def admit(
    socket: ServerConnection, hello: Hello, authenticator: Authenticator, *, clock: Clock, settings: GatewaySettings
) -> Principal:
    """Who sent this hello, by the token in it or in the request's header. Raises Refused."""
    token = hello.token
    request = socket.request
    if token is None and request is not None:
        scheme, _, credentials = (request.headers.get_all("Authorization") or [""])[0].partition(" ")
        token = credentials.strip() if scheme.lower() == "bearer" else None
    try:
        return await authenticated(token, authenticator, clock=clock, seconds=settings.unavailable_seconds)
    except AuthError as error:
        code = CloseCode.FORBIDDEN if error.code == "forbidden" else CloseCode.TOKEN_REJECTED
        raise Refused(code, error.code, CommandError(error.code, error.message)) from None
    except TimeoutError:
        late = unavailable("the token could not be checked in time")
        raise Refused(CloseCode.STORE_UNAVAILABLE, late.code, late) from None


async def authenticated(token: str | None, authenticator: Authenticator, *, clock: Clock, seconds: float) -> Principal:
    """The principal of a token that is in force. Raises AuthError, and TimeoutError after `seconds`."""
    async with within(clock, seconds):
        principal = await authenticator.authenticate(token)
    if principal.expires_at is not None and principal.expires_at <= clock.now():
        raise AuthError("this token has expired")
    return principal
