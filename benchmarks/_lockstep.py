"""Holdfast's server in this process, step by step: no sockets, no timers, and every chunk waited for.

    python -m benchmarks._lockstep --server holdfast --store memory: --together 10 --chunks 20000

A step lets `together` agents say one chunk each, and ends when all of these were written to the transports of all
their subscribers. No time passes for the server meanwhile, so that each step takes the same instructions every time.
The connections are real ones of the gateway, from the handshake on; only the transport under them has no kernel.

`--server bare` is the floor: the same agents' chunks, framed and written to the same transports.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import logging
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVarTuple, cast

import structlog
import uvloop

from benchmarks._floor import payload
from benchmarks._pace import MARK, TEXT
from benchmarks._readers import REQUEST, masked
from holdfast.protocol.codec import JSON_CODEC
from holdfast.server import Run, Server, SessionSettings
from holdfast.server.gateway.frames import frame

_Ts = TypeVarTuple("_Ts")
SESSIONS: Final = 40


class Steps:
    """What the agents wait for, and what the driver does."""

    def __init__(self, readers: int) -> None:
        self.readers = readers
        """Of each session."""
        self.gates: dict[str, asyncio.Future[None]] = {}
        self.due = 0
        """Chunks that have not been written in this step."""
        self.done: asyncio.Future[None] | None = None
        self._all_wait: asyncio.Future[None] | None = None

    async def texts(self, name: str) -> AsyncGenerator[str]:
        """One chunk at each step that opens the gate of this name."""
        loop = asyncio.get_running_loop()
        while True:
            self.gates[name] = loop.create_future()
            if self._all_wait is not None and len(self.gates) == SESSIONS and not self._all_wait.done():
                self._all_wait.set_result(None)
            await self.gates[name]
            yield TEXT

    def written(self, chunks: int) -> None:
        """So many have come to a transport."""
        self.due -= chunks
        if self.due <= 0 and self.done is not None:
            self.done.set_result(None)
            self.done = None

    async def run(self, together: int, chunks: int) -> None:
        """Goes through the sessions, `together` at a time, until so many chunks were said; then ends the process.

        All agents have to have begun. How long an orderly end would take depends on how fast the machine is.
        """
        loop = asyncio.get_running_loop()
        if len(self.gates) < SESSIONS:
            self._all_wait = loop.create_future()
            await self._all_wait
        for _ in range(100):  # whatever was left to do
            await asyncio.sleep(0)
        gc.collect()
        gc.freeze()
        gc.disable()
        names = list(self.gates)
        turns = itertools.cycle([names[at : at + together] for at in range(0, len(names), together)])
        for turn in itertools.islice(turns, chunks // together):
            done = loop.create_future()
            self.due, self.done = together * self.readers, done
            for name in turn:
                self.gates[name].set_result(None)
            await done
        os._exit(0)


class Pipe(asyncio.Transport):
    """A connection without a kernel, as the server's side has it: what is written was read at once."""

    def __init__(self, protocol: asyncio.Protocol, steps: Steps) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2), "socket": None})
        self._protocol = protocol
        self._steps = steps
        self._received = b""
        self._until: tuple[bytes, asyncio.Future[bytes]] | None = None
        self._closing = False
        protocol.connection_made(self)

    async def ask(self, data: bytes, until: bytes) -> bytes:
        """Lets the server read this, and returns what it wrote up to and with what contains `until`."""
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._received, self._until = b"", (until, found)
        self._protocol.data_received(data)
        async with asyncio.timeout(60):
            return await found

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes what the server writes."""
        if self._until is None:
            self._steps.written(bytes(data).count(MARK))
            return
        self._received += data
        until, found = self._until
        if until in self._received:
            found.set_result(self._received)
            self._until = None

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    def close(self) -> None:
        """Ends it."""
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """Ends it."""
        self.close()

    def pause_reading(self) -> None:
        """Nothing comes but what was asked for."""

    def resume_reading(self) -> None:
        """See above."""

    def is_reading(self) -> bool:
        """See above."""
        return True

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits."""

    def can_write_eof(self) -> bool:
        """As a TCP connection can."""
        return True

    def write_eof(self) -> None:
        """Says nothing more."""


class Loop(uvloop.Loop):
    """Keeps what makes the connections of the server that listens on it, and can let no time pass."""

    connection: Callable[[], asyncio.Protocol]
    _era = 0

    async def create_server(self, protocol_factory: Any, *arguments: Any, **options: Any) -> Any:
        """Listens, and keeps it."""
        self.connection = protocol_factory
        return await super().create_server(protocol_factory, *arguments, **options)

    def forget_timers(self) -> None:
        """Nothing comes of the timers that were set so far: how many come due depends on how fast the machine is."""
        self._era += 1

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Sets a timer that can be forgotten."""
        return super().call_at(when, self._kept(callback), *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Sets a timer that can be forgotten."""
        return super().call_later(delay, self._kept(callback), *args, context=context)

    def _kept(self, callback: Callable[[*_Ts], object]) -> Callable[[*_Ts], object]:
        era = self._era

        def due(*args: *_Ts) -> None:
            if era == self._era:
                callback(*args)

        return due


async def joined(name: str, steps: Steps) -> Pipe:
    """A connection that is live in a session of its own."""
    loop = cast("Loop", asyncio.get_running_loop())
    pipe = Pipe(loop.connection(), steps)
    more = f"Sec-WebSocket-Protocol: {JSON_CODEC.subprotocol}\r\n"
    await pipe.ask(REQUEST.format(path=f"/v1/sessions/{name}", more=more).encode(), b"\r\n\r\n")
    await pipe.ask(masked(b'{"type":"hello"}'), b"caughtUp")
    return pipe


async def holdfast(store: str, readers: int, together: int, chunks: int) -> None:
    """The server's way of a chunk."""
    steps = Steps(readers)

    async def stepped(run: Run) -> AsyncGenerator[str]:
        async for text in steps.texts(run.session_id):
            yield text

    server = Server(settings=SessionSettings(presence_every_ms=1_000_000_000))
    server.add_agent("stepped", stepped)
    async with server.running(port=0, store=store):
        cast("Loop", asyncio.get_running_loop()).forget_timers()
        names = [f"s-{number}" for number in range(SESSIONS)]
        for name in names:
            pipes = [await joined(name, steps) for _ in range(readers)]
            await pipes[0].ask(masked(b'{"type":"send","id":"r","text":"go"}'), b"run.started")
        await steps.run(together, chunks)


async def bare(readers: int, together: int, chunks: int) -> None:
    """The agents, and what comes out, with nothing in between."""
    steps = Steps(readers)
    around = payload("s", "json")

    async def paced(name: str) -> None:
        before, after = around
        transports = [Pipe(asyncio.Protocol(), steps) for _ in range(readers)]
        async for text in steps.texts(name):
            ready_made = frame(before + text.encode() + after, text=True)
            for transport in transports:
                transport.write(ready_made)

    async with asyncio.TaskGroup() as tasks:
        for number in range(SESSIONS):
            tasks.create_task(paced(f"s-{number}"))
        await steps.run(together, chunks)


def run(main: Coroutine[Any, Any, None]) -> None:
    """On a loop that has no sockets of its own making."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=["holdfast", "bare"], default="holdfast")
    parser.add_argument("--store", default="memory:")
    parser.add_argument("--readers", type=int, default=1)
    parser.add_argument("--together", type=int, default=1)
    parser.add_argument("--chunks", type=int, required=True)
    given = parser.parse_args()
    if given.server == "bare":
        run(bare(given.readers, given.together, given.chunks))
    else:
        run(holdfast(given.store, given.readers, given.together, given.chunks))
