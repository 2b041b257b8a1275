"""The network between a client and its server, which can be cut, or swallow what it carries without a word."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Proxy:
    """Carries TCP connections to a port of this machine.

    `up` and `down` say which direction arrives; what is sent while its direction is closed is lost for good, as are
    the connections that carried it. `refusing`: new connections are reset.
    """

    def __init__(self, target: int) -> None:
        self.up = True
        """From the client to the server."""
        self.down = True
        """From the server to the client."""
        self.refusing = False
        self.connections = 0
        """How many were ever taken."""
        self._target = target
        self._closing = False
        self._swallowed = 0
        """Connections up to this number carry nothing."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._moved = asyncio.Event()

    @property
    def url(self) -> str:
        """What a client connects to."""
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._closing = True
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Resets every connection, on both sides."""
        for writer in self._writers:
            writer.transport.abort()

    def swallow(self) -> None:
        """The connections there are stay open and carry nothing any more, not even their ends. New ones are whole."""
        self._swallowed = self.connections

    def heal(self) -> None:
        """Carries everything again."""
        self.up = self.down = True
        self.refusing = False

    async def taken(self, number: int) -> None:
        """Returns when so many connections have been taken in all."""
        while self.connections < number:
            self._moved.clear()
            await self._moved.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing or self._closing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
        else:
            self._writers.add(there_writer)
            self.connections += 1
            self._moved.set()
            number = self.connections
            try:
                await asyncio.gather(
                    self._pump(number, reader, there_writer, upwards=True),
                    self._pump(number, there_reader, writer, upwards=False),
                )
            finally:
                self._writers.discard(there_writer)
                there_writer.transport.abort()
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pump(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upwards: bool
    ) -> None:
        """Carries one direction to its end. What comes after a loss does not arrive either: a stream has no holes."""
        whole = True
        with suppress(OSError):
            while received := await reader.read(65_536):
                whole = whole and number > self._swallowed and (self.up if upwards else self.down)
                if whole:
                    writer.write(received)
        if number > self._swallowed or self._closing:
            writer.transport.abort()
