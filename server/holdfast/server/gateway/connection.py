"""One connection, from its first frame to its last: who is there, what it asks, what it is told.

The rules of the wire are taken in their order: a frame that breaks one of them gets the reply of the first it breaks,
and nothing after that is looked at. Nothing here ever ends a run: a connection that ends, ends alone.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any, Protocol

import structlog
from websockets.exceptions import ConnectionClosed

from holdfast.protocol.close_codes import CloseCode
from holdfast.protocol.codec import Codec
from holdfast.protocol.commands import Auth, Hello, History, Ping, parse_command
from holdfast.protocol.control import Ack
from holdfast.protocol.errors import CommandError
from holdfast.protocol.values import is_id
from holdfast.server.clock import Clock, Timer, within
from holdfast.server.errors import AuthError, SessionFailedError
from holdfast.server.gateway.auth import Authenticator, Principal
from holdfast.server.gateway.frames import INTERNAL_ERROR, SocketWire, decoded
from holdfast.server.gateway.handshake import (
    HandshakeError,
    admit,
    authenticated,
    error_message,
    internal,
    receive_hello,
    unavailable,
)
from holdfast.server.gateway.rates import Strikes
from holdfast.server.gateway.socket import Socket
from holdfast.server.registry import Ask
from holdfast.server.session.actor import Session
from holdfast.server.session.subscriber import Subscriber
from holdfast.server.settings import GatewaySettings
from holdfast.server.store import Store

_log = structlog.get_logger("holdfast.gateway")
_LONGEST_WAIT_SECONDS = 86_400.0
"""A token that lives longer is looked at again then."""
_CLOSING = -2
"""In the place of a count of bytes: the time counts from the close frame."""


class Sessions(Protocol):
    """What a connection needs of the node behind it."""

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def store(self) -> Store:
        """Where the logs are."""
        ...

    @property
    def accepting(self) -> bool:
        """False while draining."""
        ...

    def open(self, session_id: str) -> AbstractAsyncContextManager[Session]:
        """The actor of a session, held open while inside."""
        ...


class Connection:
    """One client's connection. `serve` it once; `watch` and `ping` are called from outside while it runs."""

    __slots__ = (
        "_authenticator",
        "_clock",
        "_expiry",
        "_in_flight",
        "_joined",
        "_joining",
        "_opened",
        "_pongs_due",
        "_reading",
        "_reads",
        "_room",
        "_sent",
        "_settings",
        "_silent_pings",
        "_socket",
        "_stuck_since",
        "_violations",
        "id",
        "session_id",
        "subscriber",
        "wire",
    )

    def __init__(
        self,
        socket: Socket,
        codec: Codec,
        session_id: str,
        *,
        clock: Clock,
        authenticator: Authenticator,
        settings: GatewaySettings,
    ) -> None:
        self.id = f"c-{secrets.token_hex(6)}"
        self.session_id = session_id
        self.wire = SocketWire(socket, codec)
        self.subscriber: Subscriber | None = None
        """There from `welcome` on."""
        self._opened: AbstractAsyncContextManager[Session] | None = None
        """What holds the session open."""
        self._joined: tuple[Session, Subscriber] | None = None
        self._socket = socket
        self._clock = clock
        self._authenticator = authenticator
        self._settings = settings
        self._expiry: Timer | None = None
        self._violations: Strikes | None = None
        self._joining: asyncio.Task[None] | None = None
        self._in_flight = 0
        self._room: asyncio.Future[None] | None = None
        """Waited for while too many commands are in flight."""
        self._reads: deque[History | Ping] | None = None
        """Commands that only read, replied to one after the other while the task for them runs."""
        self._reading: asyncio.Task[None] | None = None
        self._silent_pings = 0
        self._pongs_due = 0
        self._sent = -1
        self._stuck_since = 0.0

    # The connection's life

    async def serve(self, node: Sessions) -> None:
        """Speaks with the client until the connection is closing, and leaves no task behind.

        Raises nothing but cancellation, which cuts the connection.
        """
        try:
            session, subscriber = await self._enter(node)
            # To the last frame that came before this side began to close, whatever the client has done since: one that
            # stops a run and is gone has stopped it.
            while True:
                await self._frame(session, subscriber, await self._socket.recv())
        except ConnectionClosed:
            """It ended from the other side, or was lost."""
        except HandshakeError as closing:
            if closing.error is not None:
                self._say(error_message(closing.error))
            self._hang_up(closing.code, closing.reason)
        except SessionFailedError as failed:
            self._say(error_message(unavailable(str(failed))))
            self._hang_up(CloseCode.STORE_UNAVAILABLE, "the session failed here")
        except asyncio.CancelledError:
            self.cut()
            raise
        except Exception:
            _log.exception("connection failed", session=self.session_id, connection=self.id)
            self._say(error_message(internal()))
            self._hang_up(INTERNAL_ERROR, "internal")
        finally:
            await self._leave()

    async def _enter(self, node: Sessions) -> tuple[Session, Subscriber]:
        """Hears who it is, and joins the session, which `_leave` lets go. Nothing of the hello is kept."""
        settings, clock = self._settings, self._clock
        hello = await receive_hello(self._socket, self.wire.codec, clock=clock, settings=settings)
        self._forgive(self._socket.waits.pop(0))
        principal = await admit(self._socket, hello, self._authenticator, clock=clock, settings=settings)
        self._socket.admitted()
        try:
            async with within(clock, settings.unavailable_seconds):
                opened = node.open(self.session_id)
                session = await opened.__aenter__()
                self._opened = opened
        except TimeoutError:
            error = unavailable()
            raise HandshakeError(CloseCode.STORE_UNAVAILABLE, error.code, error) from None
        subscriber = Subscriber(
            connection=self.id,
            principal=principal.name,
            device=hello.device or f"d-{secrets.token_hex(6)}",
            since=clock.now(),
            wire=self.wire,
            messages=hello.messages,
        )
        self._joined = session, subscriber
        await self._join(session, subscriber, hello, principal)
        return self._joined

    async def _leave(self) -> None:
        """Ends all that goes on for this connection. Its wire is closed or cut: so nothing takes it in any more."""
        if self._opened is None:
            return
        if self._expiry is not None:
            self._expiry.cancel()
        tasks = [task for task in (self._joining, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            if self._joined is not None:
                session, subscriber = self._joined
                session.leave(subscriber)
            await self._opened.__aexit__(None, None, None)

    def _hang_up(self, code: int, reason: str) -> None:
        self.wire.close(code, reason)
        self._socket.shut(code, reason)

    # Joining

    async def _join(self, session: Session, subscriber: Subscriber, hello: Hello, principal: Principal) -> None:
        """Returns when `welcome` has been written; the catch-up goes on beside the commands."""
        welcome: dict[str, Any] = {
            "type": "welcome",
            "session": self.session_id,
            "connection": self.id,
            "principal": principal.name,
            "device": subscriber.device,
            "at": self._clock.now(),
            "heartbeatMs": self._settings.heartbeat_ms,
            "features": [],
            "limits": self._settings.announced(),
        }
        if principal.expires_at is not None:
            welcome["expiresAt"] = principal.expires_at
        started = self.wire.started = asyncio.get_running_loop().create_future()
        self._joining = asyncio.create_task(self._catch_up(session, subscriber, hello, welcome))
        left = self._socket.left  # the one who leaves waits for no welcome, and is heard out
        try:
            async with within(self._clock, self._settings.unavailable_seconds):
                await asyncio.wait({started, self._joining, left}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            error = unavailable()
            raise HandshakeError(CloseCode.STORE_UNAVAILABLE, error.code, error) from None
        finally:
            self.wire.started = None
        self.subscriber = subscriber
        self._expire_at(principal.expires_at)
        _log.info(
            "connection opened",
            session=self.session_id,
            connection=self.id,
            principal=principal.name,
            device=subscriber.device,
            client=hello.client,
        )

    async def _catch_up(
        self, session: Session, subscriber: Subscriber, hello: Hello, welcome: Mapping[str, Any]
    ) -> None:
        try:
            await session.join(subscriber, hello.cursor, welcome)
        except SessionFailedError as failed:
            self._say(error_message(unavailable(str(failed))))
            self.wire.close(CloseCode.STORE_UNAVAILABLE, "the session failed here")
        except Exception:
            _log.exception("join failed", session=self.session_id, connection=self.id)
            self._say(error_message(internal()))
            self.wire.close(INTERNAL_ERROR, "internal")

    # Commands

    async def _frame(self, session: Session, subscriber: Subscriber, received: str | bytes) -> None:
        wait = self._socket.waits.pop(0)
        self._silent_pings = 0
        now = self._clock.monotonic()
        command_id: str | None = None
        try:
            message = decoded(self.wire.codec, received, self._settings.frame_bytes)
            given = message.get("id")
            command_id = given if is_id(given) else None
            is_pong = message.get("type") == "pong"
            if is_pong and self._pongs_due:
                self._pongs_due -= 1
                self._forgive(wait)
                return
            if wait:
                if self._socket.meter.refused(len(received), now):
                    raise HandshakeError(CloseCode.RATE_LIMITED, "too many commands")
                raise CommandError("rate_limited", "too many commands", retry_after_ms=max(1, round(wait * 1000)))
            if is_pong:
                return
            command = parse_command(message)
        except CommandError as error:
            subscriber.control(error_message(error, command_id))
            if error.code in ("malformed", "too_large", "unknown_type", "invalid"):
                self._violate(now)
            return
        if session.failed:
            raise SessionFailedError("the session failed here")
        match command:
            case History() | Ping():
                self._read(session, subscriber, command)
            case Auth():
                await self._refresh(subscriber, command)
            case _:
                session.submit(
                    Ask(subscriber.principal, subscriber.device, command),
                    partial(self._replied, subscriber, command.id),
                )
                self._in_flight += 1
        if self._in_flight >= self._settings.commands_in_flight:
            # One that is lost sends nothing any more: what is left of it need not wait.
            self._room = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._room, self._socket.connection_lost_waiter}, return_when=asyncio.FIRST_COMPLETED)

    def _replied(self, subscriber: Subscriber, command_id: str, outcome: Ack | CommandError) -> None:
        self._landed()
        if isinstance(outcome, CommandError):
            subscriber.control(error_message(outcome, command_id))
        else:
            subscriber.control(outcome)

    def _landed(self) -> None:
        self._in_flight -= 1
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _forgive(self, wait: float) -> None:
        """What was asked for is free, if it was weighed, and is not refused, if it was too much."""
        if not wait:
            self._socket.meter.give_back()

    def _violate(self, now: float) -> None:
        if self._violations is None:
            self._violations = Strikes(self._settings.violations_per_minute)
        if self._violations.strike(now):
            raise HandshakeError(CloseCode.PROTOCOL_VIOLATIONS, "too many frames that are no commands")

    async def _refresh(self, subscriber: Subscriber, command: Auth) -> None:
        try:
            principal = await authenticated(
                command.token, self._authenticator, clock=self._clock, seconds=self._settings.unavailable_seconds
            )
            if principal.name != subscriber.principal:
                raise AuthError("this token is another principal's", code="forbidden")
        except AuthError as error:
            subscriber.control(error_message(CommandError(error.code, error.message), command.id))
            return
        except TimeoutError:
            subscriber.control(error_message(unavailable("the token could not be checked in time"), command.id))
            return
        self._expire_at(principal.expires_at)
        acknowledged: dict[str, Any] = {"type": "ack", "id": command.id, "outcome": "refreshed"}
        if principal.expires_at is not None:
            acknowledged["expiresAt"] = principal.expires_at
        subscriber.control(acknowledged)

    # Commands that only read

    def _read(self, session: Session, subscriber: Subscriber, command: History | Ping) -> None:
        self._in_flight += 1
        if self._reads is not None:
            self._reads.append(command)
            return
        self._reads = deque([command])
        self._reading = asyncio.create_task(self._reply_to_reads(session, subscriber, self._reads))

    async def _reply_to_reads(self, session: Session, subscriber: Subscriber, commands: deque[History | Ping]) -> None:
        """One after the other, and page by page: of all that is asked for only one page lies in memory."""
        while commands:
            command = commands.popleft()
            try:
                if isinstance(command, History):
                    await self._pages(session, subscriber, command)
                else:
                    # Through the mailbox: the reply stands behind everything committed before the ping came.
                    async with within(self._clock, self._settings.unavailable_seconds):
                        await session.settled()
                    subscriber.control({"type": "ack", "id": command.id, "outcome": "pong", "head": subscriber.seq})
            except TimeoutError:
                subscriber.control(error_message(unavailable(), command.id))
            except SessionFailedError as failed:
                subscriber.control(error_message(unavailable(str(failed)), command.id))
            except Exception:
                _log.exception("reading failed", session=self.session_id, connection=self.id)
                subscriber.control(error_message(internal(), command.id))
            self._landed()
            await self._delivered(subscriber)
        self._reads = self._reading = None

    async def _pages(self, session: Session, subscriber: Subscriber, command: History) -> None:
        """Writes the pages as their reader takes them. Raises TimeoutError where the store does not answer in time."""
        async with within(self._clock, self._settings.unavailable_seconds):
            pages = await session.history(command.id, command.before, command.limit)
        async with aclosing(pages):
            page = await self._next(pages)  # first of all: a store that says nothing may hold up the catch-up as well
            await self._delivered(subscriber)  # now everything up to where they were cut has been written
            while page is not None and not self.wire.closed:
                subscriber.write(page)
                page = await self._next(pages)
                await self.wire.drained()

    async def _next(self, pages: AsyncGenerator[dict[str, Any]]) -> dict[str, Any] | None:
        async with within(self._clock, self._settings.unavailable_seconds):
            return await anext(pages, None)

    async def _delivered(self, subscriber: Subscriber) -> None:
        """Returns when what was written has left the server, or the connection has ended."""
        await self.wire.drained()
        if subscriber.behind and not self.wire.closed:
            await subscriber.live()
            await self.wire.drained()

    # Watched from outside

    def ping(self) -> None:
        """Sends a sign of life, or closes a connection that sent no pong for the last ones."""
        subscriber = self.subscriber
        if subscriber is None or self.wire.closed or subscriber.behind or self.wire.congested:
            return  # not there yet, or busy reading: a reader that stands still is found by `watch`
        if self._silent_pings >= self._settings.missed_heartbeats:
            self.wire.close(CloseCode.HEARTBEAT_MISSED, "no answer to the heartbeat")
            return
        self._silent_pings += 1
        self._pongs_due = min(self._pongs_due + 1, self._settings.missed_heartbeats)
        self._say({"type": "ping", "head": subscriber.seq})

    def watch(self, now: float) -> None:
        """Closes a connection that takes nothing of what waits for it, and cuts one that takes too long to close."""
        if self.wire.closed:
            if self._sent != _CLOSING:
                self._sent, self._stuck_since = _CLOSING, now
            elif now - self._stuck_since >= self._settings.close_seconds:
                self.cut()
        elif not self.wire.congested:
            self._sent = -1
        elif self.wire.sent > self._sent:
            self._sent, self._stuck_since = self.wire.sent, now
        elif now - self._stuck_since >= self._settings.slow_seconds:
            self.wire.close(CloseCode.TOO_SLOW, "this connection does not read")

    def say_goodbye(self, reason: str, reconnect_after_ms: int) -> None:
        """Tells the client that the connection closes soon, and when to come back."""
        if self.subscriber is not None:
            self._say({"type": "goaway", "reason": reason, "reconnectAfterMs": reconnect_after_ms})

    def cut(self) -> None:
        """Ends the connection at once, without a word."""
        self._socket.transport.abort()

    def _expire_at(self, at: int | None) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if at is not None:
            seconds = min((at - self._clock.now()) / 1000, _LONGEST_WAIT_SECONDS)
            self._expiry = self._clock.call_later(max(0.0, seconds), partial(self._expired, at))

    def _expired(self, at: int) -> None:
        if at > self._clock.now():
            self._expire_at(at)
        else:
            self.wire.close(CloseCode.TOKEN_EXPIRED, "the token has expired")

    def _say(self, message: Mapping[str, Any]) -> None:
        self.wire.write(self.wire.frame(self.wire.codec.encode(message)))
