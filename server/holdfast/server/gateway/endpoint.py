"""The WebSocket endpoint: it takes connections, watches over all of them with one timer, and lets them go.

A connection costs one task, the library's own. Heartbeats, stalled readers and connections that do not close are seen
to in one sweep over all of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket as sockets
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from holdfast.protocol.close_codes import CloseCode
from holdfast.protocol.codec import JSON_CODEC, MSGPACK_CODEC, negotiate
from holdfast.server import process
from holdfast.server.clock import Timer, within
from holdfast.server.errors import ConfigError, StoreError
from holdfast.server.gateway import http, static
from holdfast.server.gateway.admission import Admission
from holdfast.server.gateway.auth import AnonymousAuthenticator, Authenticator, is_loopback
from holdfast.server.gateway.connection import Connection, Sessions
from holdfast.server.gateway.rates import Meter
from holdfast.server.gateway.socket import WRITE_LIMIT, Socket
from holdfast.server.settings import GatewaySettings

SEND_BUFFER_BYTES: Final = 64 * 1024
"""Asked of the kernel for each connection: left to itself it takes megabytes before it says that a reader lags."""
_TICK_SECONDS: Final = 0.25
_READY_SECONDS: Final = 2.0
_WAITING_FRAMES: Final = 4
"""Frames of one connection that are read ahead of what is done with them."""
_CROWDED_LOG_SECONDS: Final = 60.0
_NAMED: Final = 20
"""So many of those that were left behind at a stop are named."""
_LAST_SECONDS: Final = 1.0
"""How long what was cut, and then what was cancelled, may take to end at a stop."""
_log = structlog.get_logger("holdfast.gateway")
# What the library says of strangers' broken handshakes is noise, and of connections the gateway says it itself.
_library_log = logging.getLogger("holdfast.websockets")
_library_log.setLevel(logging.CRITICAL)


class Gateway:
    """Serves the sessions of a node. `start` it, `drain` it when the node is drained, `stop` it before the node.

    The node is drained first so that those who watch see their runs finish before they are sent away.

    Without an authenticator everybody is the principal `local`, and only loopback addresses are listened at and
    answered by. `files` are the chat page and its modules, those shipped with this package where none are given.
    """

    def __init__(
        self,
        node: Sessions,
        *,
        authenticator: Authenticator | None = None,
        settings: GatewaySettings | None = None,
        files: static.Files | None = None,
    ) -> None:
        self._node = node
        self._authenticator = authenticator or AnonymousAuthenticator()
        self._settings = settings or GatewaySettings()
        self._nobody_is_asked = isinstance(self._authenticator, AnonymousAuthenticator)
        self._admission = Admission(self._settings.origins, loopback_only=self._nobody_is_asked)
        self._files = static.shipped() if files is None else files
        if not self._settings.page:
            self._files = static.without_page(self._files)
        self._draining = False
        self._server: Server | None = None
        self._connections: OrderedDict[Connection, float] = OrderedDict()
        """Every connection, with the time of its next heartbeat; soonest first."""
        self._timer: Timer | None = None
        self._watched_at = 0.0
        self._crowded = False
        """Whether file descriptors run short: connections should go elsewhere."""
        self._crowded_log_at = 0.0
        """Not before then is it said again."""
        self._sockets: set[Socket] = set()
        """Every TCP connection, those included that have not asked for anything yet."""

    async def start(self, host: str, port: int) -> None:
        """Listens on `host`; port 0 takes any free one. Raises ConfigError, or OSError where it cannot be had.

        An address that other machines can reach is refused without authentication.
        """
        if self._nobody_is_asked and not is_loopback(host):
            raise ConfigError(
                f"{host} can be reached by other machines, and nobody would be asked who they are: set tokens "
                "(HOLDFAST_TOKENS=name:token, or an authenticator in code), or listen on 127.0.0.1"
            )
        self._server = await serve(
            self._serve,
            host,
            port,
            select_subprotocol=_select_subprotocol,
            compression=None,
            process_request=self._process_request,
            server_header=None,
            ping_interval=None,
            close_timeout=self._settings.close_seconds,
            max_size=2 * self._settings.frame_bytes,
            max_queue=_WAITING_FRAMES,
            write_limit=WRITE_LIMIT,
            logger=_library_log,
            start_serving=False,
            create_connection=cast("type[ServerConnection]", self._new_socket),
        )
        for listening in self._server.sockets:
            listening.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, SEND_BUFFER_BYTES)
        await self._server.start_serving()
        self._timer = self._node.clock.call_later(_TICK_SECONDS, self._tick)

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Host and port of every listening socket."""
        if self._server is None:
            return []
        return [cast("tuple[str, int]", listening.getsockname()[:2]) for listening in self._server.sockets]

    @property
    def port(self) -> int:
        """The port of the first listening socket."""
        return self.addresses[0][1]

    @property
    def connections(self) -> int:
        """How many are connected, those included that have not said hello."""
        return len(self._connections)

    async def drain(self) -> None:
        """Sends everybody away, with times to come back that are spread, and refuses new connections.

        Returns when the last close frame has been written. HTTP is answered until `stop`.
        """
        self._draining = True
        settings = self._settings
        leaving = list(self._connections)
        spread = min(30_000, settings.reconnect_spread_ms)
        for connection in leaving:
            connection.say_goodbye("draining", random.randint(0, spread))
        for start in range(0, len(leaving), settings.drain_batch):
            if start:
                await self._pause(settings.drain_pause_seconds)
            for connection in leaving[start : start + settings.drain_batch]:
                connection.wire.close(CloseCode.DRAINING, "draining")

    async def stop(self, seconds: float | None = None) -> None:
        """Ends every connection and stops listening.

        Connections that do not close in time are cut, and what serves them is cancelled; what does not end even then
        is named in the log and left behind. All this takes at most `seconds`, or, where they are not given, two
        seconds more than `close_seconds`.
        """
        close_seconds, last_seconds = self._settings.close_seconds, _LAST_SECONDS
        if seconds is not None:
            close_seconds, last_seconds = min(close_seconds, seconds / 2), min(last_seconds, seconds / 4)
        self._draining = True
        server, self._server = self._server, None
        if server is None:
            return
        for connection in self._connections:
            connection.wire.close(CloseCode.GOING_AWAY, "the server stops")
        for socket in list(self._sockets):
            if socket.request is None:
                socket.transport.abort()  # a browser keeps some at hand that it has not used
        server.close()
        measures = (
            (close_seconds, self._cut),
            (last_seconds, partial(self._cancel, server)),
            (last_seconds, partial(self._leave_behind, server)),
        )
        for patience, what_then in measures:
            try:
                async with within(self._node.clock, patience):
                    await server.wait_closed()
                break
            except TimeoutError:
                what_then()
        if self._timer is not None:
            self._timer.cancel()

    def _cut(self) -> None:
        for socket in list(self._sockets):
            socket.transport.abort()

    def _cancel(self, server: Server) -> None:
        for task in server.handler_tasks:
            task.cancel()

    def _leave_behind(self, server: Server) -> None:
        left = [f"{connection.session_id} {connection.id}" for connection in self._connections]
        _log.error("connections left behind", connections=left[:_NAMED], tasks=len(server.handler_tasks))
        if server.close_task is not None:
            server.close_task.cancel()

    # One connection

    def _new_socket(self, *arguments: Any, **named: Any) -> Socket:
        clock = self._node.clock
        meter = Meter(self._settings, clock.monotonic())
        return Socket(
            *arguments,
            clock=clock,
            meter=meter,
            first_bytes=self._settings.hello_bytes,
            all_of_them=self._sockets,
            **named,
        )

    async def _serve(self, accepted: ServerConnection) -> None:
        socket = cast(Socket, accepted)
        session_id = http.session_of(socket.request.path if socket.request is not None else "")
        assert session_id is not None, "process_request lets no other path through"
        clock = self._node.clock
        codec = negotiate([] if socket.subprotocol is None else [socket.subprotocol])
        assert codec is not None, "the subprotocol was chosen from the known ones"
        connection = Connection(
            socket, codec, session_id, clock=clock, authenticator=self._authenticator, settings=self._settings
        )
        began = clock.monotonic()
        self._connections[connection] = began + self._settings.heartbeat_ms / 1000
        try:
            if self._draining:  # it was between the handshake and here when the drain began
                connection.wire.close(CloseCode.DRAINING, "draining")
            await connection.serve(self._node)
            if connection.wire.closed:
                await socket.wait_closed()
        finally:
            del self._connections[connection]
            _log.info(
                "connection closed",
                session=session_id,
                connection=connection.id,
                code=socket.code,
                seconds=round(clock.monotonic() - began, 3),
            )

    async def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        response = http.refusal(socket, request, self._admission)
        if response is None and http.asks_for_readiness(request):
            response = http.readiness(socket, ready=await self._is_ready())
        elif response is None:
            response = http.response(
                socket, request, admission=self._admission, files=self._files, draining=self._draining
            )
        if response is None:
            return None
        if response.status_code == HTTPStatus.FORBIDDEN:  # a browser tells its page nothing of it
            path = http.path_of(request.path)[:200]  # without its query, in which a token might stand
            _log.info("request refused", path=path, reason=(response.body or b"").decode().strip())
        return http.without_body(response) if request.method == "HEAD" else response

    async def _is_ready(self) -> bool:
        """Whether connections should be sent here: nothing is going down, and the store answers."""
        if self._draining or self._crowded or not self._node.accepting:
            return False
        try:
            async with within(self._node.clock, _READY_SECONDS):
                await self._node.store.ping()
        except (TimeoutError, StoreError) as error:
            _log.warning("not ready", error=str(error) or "the store does not answer")
            return False
        return True

    # All of them

    def _tick(self) -> None:
        clock = self._node.clock
        self._timer = clock.call_later(_TICK_SECONDS, self._tick)
        now = clock.monotonic()
        interval = self._settings.heartbeat_ms / 1000
        while self._connections:
            connection, due = next(iter(self._connections.items()))
            if due > now:
                break
            self._connections[connection] = now + interval
            self._connections.move_to_end(connection)
            connection.ping()
        if now - self._watched_at >= 1.0:
            self._watched_at = now
            for connection in self._connections:
                connection.watch(now)
            self._watch_descriptors(now)

    def _watch_descriptors(self, now: float) -> None:
        """The system drops connections it has no descriptor for without a word to anybody."""
        self._crowded = process.short_of_descriptors()
        if self._crowded and now >= self._crowded_log_at:
            self._crowded_log_at = now + _CROWDED_LOG_SECONDS
            _log.error("file descriptors run short: new connections are dropped", connections=len(self._sockets))

    async def _pause(self, seconds: float) -> None:
        passed = asyncio.get_running_loop().create_future()
        timer = self._node.clock.call_later(seconds, lambda: passed.set_result(None))
        try:
            await passed
        finally:
            timer.cancel()


def _select_subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    codec = negotiate(offered)
    if codec is None:
        raise NegotiationError(f"known subprotocols are {JSON_CODEC.subprotocol} and {MSGPACK_CODEC.subprotocol}")
    return Subprotocol(codec.subprotocol) if offered else None
