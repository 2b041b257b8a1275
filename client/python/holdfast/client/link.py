"""The asyncio shell around `Connection`: sockets, the clock, and waking who waits. It decides nothing."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from holdfast.client.connection import Connection
from holdfast.client.errors import ConnectionFailedError
from holdfast.client.outbox import Reply
from holdfast.client.view import News
from holdfast.protocol import Codec, MalformedError
from holdfast.protocol.codec import READER_DEPTH

Token: TypeAlias = str | Callable[[], str | Awaitable[str | None] | None] | None

OPEN_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 1.0
"""How long what is still to be written may take when the client closes, and how long the server's goodbye."""
LINGER_SECONDS: Final = 2.0
"""How long a client that closes waits for the replies to the commands that were given."""
_SPARE: Final = 2
"""Times `limits.messageBytes`: the server may put several messages into one frame."""
_TRY_AGAIN: Final = frozenset({408, 425, 429})
_log: Final = logging.getLogger("holdfast.client")


class Link:
    """Keeps a `Connection` connected. One task owns the sockets; `deliver` gets all news in order."""

    def __init__(
        self, connection: Connection, codec: Codec, url: str, token: Token, deliver: Callable[[News], None]
    ) -> None:
        self.connection = connection
        self.token = token
        self.trouble: ConnectionFailedError | None = None
        """Why the latest try to open a connection failed; None once one was open."""
        self._codec = codec
        self._url = url
        self._deliver = deliver
        self._waiters: dict[str, asyncio.Future[Reply]] = {}
        self._pulse = asyncio.Event()
        self._writable = asyncio.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._keep_connected(), name="holdfast client")

    async def changed(self) -> None:
        """Returns after the next change of anything that the connection knows."""
        await self._pulse.wait()

    def command(self, message: Mapping[str, Any]) -> asyncio.Future[Reply]:
        """Issues a command: its reply, over any number of connections. Raises as `Connection.submit` does.

        The future is shared by all who gave the same command: who waits shields it from being cancelled. An error that
        nobody waits for is told by asyncio, like that of a task.
        """
        self.connection.submit(message, self._loop.time())
        waiter = self._waiters.get(message["id"])
        if waiter is None:
            waiter = self._waiters[message["id"]] = self._loop.create_future()
        self._publish()
        return waiter

    async def close(self) -> None:
        """Waits until the commands that were given have their replies, at most LINGER_SECONDS, and closes the socket.

        What has no reply then is told: to who waits for it, and in the log. Cancelling this ends the wait for
        replies; what was given is written before the goodbye all the same. Safe to call again, also meanwhile.
        """
        self.connection.leave(self._loop.time())
        self._publish()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while self.connection.outstanding:
                        await self.changed()
        finally:
            await self._close_socket()

    async def _close_socket(self) -> None:
        if not self._closing:
            self._closing = True
            self._task.cancel()
        try:
            await asyncio.wait([self._task])
        finally:
            self._tell_of_what_is_left()
            self.connection.close()
            self._publish()

    def _tell_of_what_is_left(self) -> None:
        left = self.connection.outstanding
        if left:
            names = ", ".join(f"{command['type']} {command['id']}" for command in left)
            _log.warning("closed before the server had replied, so these may have arrived or not: %s", names)
        for command in left:
            self._waiters[command["id"]].add_done_callback(_retrieve)

    # ---- the owner task

    async def _keep_connected(self) -> None:
        try:
            while self.connection.failure is None:
                await self._one_connection()
                self._publish()
                await self._wait_for_the_next()
        except Exception as error:
            # Nothing connects any more, a package for a proxy that is missing, say: whoever waits is told.
            _log.exception("the client cannot go on")
            failed = ConnectionFailedError(f"The client cannot go on: {error!r}.", retryable=False)
            failed.__cause__ = error
            self.connection.fail(failed)
            self._publish()

    async def _wait_for_the_next(self) -> None:
        """Until the next connection is due, which may come to be earlier meanwhile."""
        while (due := self.connection.reconnect_at) is not None and due > self._loop.time():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self.changed()

    async def _one_connection(self) -> None:
        connection = self.connection
        connection.opening()
        self._publish()
        try:
            token = await self._current_token()
            socket = await open_websocket(
                self._url,
                subprotocols=[Subprotocol(self._codec.subprotocol)],
                compression=None,
                max_size=_SPARE * connection.limits["messageBytes"],
                ping_interval=None,  # the protocol has its own heartbeat
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                proxy=None if _is_loopback(self._url) else True,
            )
        except (OSError, WebSocketException, ConnectionFailedError) as error:
            self._not_opened(error)
            return
        self.trouble = None
        writer = self._loop.create_task(self._write(socket), name="holdfast client writer")
        try:
            connection.opened(self._loop.time(), token)
            self._publish()
            await self._read(socket)
        except ConnectionClosed:
            pass
        finally:
            if self._closing and connection.lost is None:
                self._writable.set()  # what was given is written, in order, before the goodbye
                await asyncio.wait([writer], timeout=CLOSE_SECONDS)
            writer.cancel()
            await asyncio.wait([writer])
            if connection.lost is not None:
                socket.transport.abort()  # whoever says nothing says no goodbye either
            await socket.close()
        connection.closed(self._loop.time(), socket.close_code or 1006, socket.close_reason or "")

    async def _read(self, socket: ClientConnection) -> None:
        connection = self.connection
        while connection.lost is None:
            try:
                async with asyncio.timeout_at(connection.deadline()):
                    frame = await socket.recv()
            except TimeoutError:
                connection.tick(self._loop.time())
            else:
                try:
                    message = self._codec.decode(frame, max_depth=READER_DEPTH)
                except MalformedError as error:
                    connection.undecodable(str(error))
                else:
                    connection.received(message, self._loop.time())
            self._publish()

    async def _write(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                self._writable.clear()
                for frame in self.connection.frames():
                    await socket.send(frame, text=self._codec.text)
                if self._closing:
                    return
                await self._writable.wait()

    async def _current_token(self) -> str | None:
        if not callable(self.token):
            return self.token
        try:
            token = self.token()
            return await token if isinstance(token, Awaitable) else token
        except Exception as error:  # the program's own code; it may well work at the next try
            raise ConnectionFailedError(f"The token could not be had: {error!r}.") from error

    def _not_opened(self, error: Exception) -> None:
        failed = _connection_failed(error, self._url)
        self.trouble = failed
        if failed.retryable:
            self.connection.closed(self._loop.time(), 1006, transient=failed)
        else:
            self.connection.fail(failed)

    def _publish(self) -> None:
        for settled in self.connection.settled():
            waiter = self._waiters.pop(settled.command_id, None)
            if waiter is None or waiter.done():
                continue
            if settled.error is not None:
                waiter.set_exception(settled.error)
            else:
                assert settled.reply is not None, "a command settles with a reply or an error"
                waiter.set_result(settled.reply)
        for news in self.connection.news():
            self._deliver(news)
        self._writable.set()
        self._pulse.set()
        self._pulse = asyncio.Event()


def _connection_failed(error: Exception, url: str) -> ConnectionFailedError:
    if isinstance(error, ConnectionFailedError):
        return error
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc}"
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        again = status >= 500 or status in _TRY_AGAIN
        failed = ConnectionFailedError(
            f"{place} refused the connection with HTTP {status}.", status=status, retryable=again
        )
    elif isinstance(error, InvalidHandshake) and not isinstance(error.__cause__, EOFError):
        failed = ConnectionFailedError(f"{place} does not speak this protocol: {error}.", retryable=False)
    elif isinstance(error, TimeoutError):
        failed = ConnectionFailedError(f"{place} did not answer in time.")
    elif isinstance(error, InvalidHandshake):  # it ended in the middle: the network's doing, or a server that went away
        failed = ConnectionFailedError(f"{place} closed the connection before it was open.")
    else:
        failed = ConnectionFailedError(f"{place} cannot be reached: {error}.")
    failed.__cause__ = error
    return failed


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _retrieve(waiter: asyncio.Future[Reply]) -> None:
    """Marks the error that a command got as seen: it is told already."""
    waiter.exception()
