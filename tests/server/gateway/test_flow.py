"""How a connection is written to while its reader keeps up, and what is counted while it does not."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from holdfast.protocol import JSON_CODEC
from holdfast.server.gateway.frames import SocketWire
from holdfast.server.gateway.rates import Meter
from holdfast.server.gateway.socket import WAITING_BYTES, WRITE_LIMIT, Socket
from holdfast.server.settings import GatewaySettings
from tests.support.doubles import FakeClock
from tests.support.raw_client import PING, frame

_UNMETERED = GatewaySettings(commands_per_second=1e9, command_burst=10**9)
_Step = tuple[str, int]
_STEPS = st.lists(
    st.tuples(st.sampled_from(["event", "answer", "pings", "take"]), st.integers(1, 100_000)), min_size=1, max_size=40
)


class Host:
    """What a connection needs of its server, without one."""

    def __init__(self) -> None:
        self.handler_tasks: set[asyncio.Task[None]] = set()

    async def handler(self, _: object) -> None:
        """Does nothing."""


class Kernel(asyncio.Transport):
    """A transport whose other end takes exactly what it is told to, and tells when too much waits for it."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.waiting = self.taken = self.given = 0
        self._protocol = protocol
        self._paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keeps count, and pauses its protocol while it is called, as the transports of event loops do."""
        self.waiting += len(data)
        self.given += len(data)
        if self.waiting > WRITE_LIMIT and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def take(self, size: int) -> int:
        """So much is taken, if as much waits."""
        size = min(size, self.waiting)
        self.waiting -= size
        self.taken += size
        if self._paused and self.waiting <= WRITE_LIMIT // 4:
            self._paused = False
            self._protocol.resume_writing()
        return size

    def get_write_buffer_size(self) -> int:
        """What waits."""
        return self.waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """They are fixed."""

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""

    def can_write_eof(self) -> bool:
        """As that of TCP can."""
        return True

    def write_eof(self) -> None:
        """Nothing more is written."""


def _connected() -> tuple[Kernel, Socket, SocketWire]:
    socket = Socket(
        ServerProtocol(state=OPEN),
        cast("Any", Host()),
        clock=FakeClock(),
        meter=Meter(_UNMETERED, 0.0),
        first_bytes=10**9,
        all_of_them=set(),
        write_limit=WRITE_LIMIT,
    )
    socket.request = Request("/", Headers())
    kernel = Kernel(socket)
    socket.connection_made(kernel)
    socket.admitted()
    return kernel, socket, SocketWire(socket, JSON_CODEC)


@given(_STEPS)
@example([("event", 70_000), ("take", 60_000), ("event", 90_000), ("take", 10), ("take", 90_000)])
def test_what_is_sent_is_what_the_kernel_takes_of_a_lagging_reader(steps: list[_Step]) -> None:
    """Whoever writes what, in whichever order: `sent` grows by what is taken while the reader lags, and by no write."""

    async def play() -> None:
        kernel, socket, wire = _connected()
        lagging = 0
        for kind, size in steps:
            match kind:
                case "event" if wire.transmit is not None:
                    wire.transmit(b"x" * size)
                case "pings":
                    socket.data_received(frame(PING, b"x" * 125) * (size // 1_000 + 1))
                    await asyncio.sleep(0)  # parsed a few at a time
                case "take":
                    was_lagging = wire.congested
                    taken = kernel.take(size)
                    lagging += taken if was_lagging else 0
                case _:
                    wire.write(b"x" * size)
            assert wire.sent == lagging
            assert (wire.transmit is None) is (wire.congested or wire.closed)

    asyncio.run(play())


async def test_a_reader_that_lags_is_not_transmitted_to_until_it_has_caught_up() -> None:
    """Beyond the limit nothing is written past the count of what waits; below a quarter of it everything is again."""
    kernel, _, wire = _connected()
    given: list[int] = []
    for size in (WRITE_LIMIT, 1, 1):
        if wire.transmit is not None:
            wire.transmit(b"x" * size)
        given.append(kernel.given)
    assert given == [WRITE_LIMIT, WRITE_LIMIT + 1, WRITE_LIMIT + 1]
    takes: list[bool] = []
    for size in (WRITE_LIMIT // 2, WRITE_LIMIT // 2):
        kernel.take(size)
        takes.append(wire.transmit is not None)
    assert takes == [False, True]


async def test_what_waits_is_bounded_whoever_writes() -> None:
    """Beyond the bound the connection is closed as too slow, and nothing is written behind that."""
    kernel, socket, wire = _connected()
    for _ in range(2 * WAITING_BYTES // 100_000):
        wire.write(b"x" * 100_000)
    assert socket.code == 4003
    assert WAITING_BYTES < kernel.waiting < WAITING_BYTES + 200_000


@pytest.mark.parametrize("end", ["by this side", "by the other", "shut", "lost"])
async def test_nothing_is_transmitted_behind_the_close(end: str) -> None:
    """From the moment in which a connection begins to close, whoever begins it, no frame follows the close frame."""
    kernel, socket, wire = _connected()
    open_before = wire.transmit is not None
    match end:
        case "by this side":
            wire.close(4000, "because")
        case "by the other":
            socket.data_received(frame(8, b"\x03\xe8"))
        case "shut":
            socket.shut(4000, "because")
        case _:
            socket.connection_lost(None)
    assert (open_before, wire.transmit, wire.closed) == (True, None, True)
    given = kernel.given
    wire.write(b"x")
    assert kernel.given == given
