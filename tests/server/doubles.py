"""Stand-ins for tests of the server: a clock turned by hand, a wire that is a list, agents that wait to be told."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from holdfast.protocol import JSON_CODEC, CloseCode, Codec, CommandError
from holdfast.protocol.commands import Cursor, parse_command
from holdfast.server.registry import Ask
from holdfast.server.session import Session
from holdfast.server.subscriber import Subscriber


class FakeTimer:
    """A call on the fake clock."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """It is not called any more."""
        self.call = None


class FakeClock:
    """A clock that stands still until `advance`."""

    def __init__(self, now: int = 1_000_000) -> None:
        self._now = now
        self._timers: list[tuple[int, int, FakeTimer]] = []
        self._count = count()

    def now(self) -> int:
        """Milliseconds."""
        return self._now

    def monotonic(self) -> float:
        """Seconds."""
        return self._now / 1000

    def call_later(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        """Calls when `advance` gets there."""
        timer = FakeTimer(call)
        heapq.heappush(self._timers, (self._now + round(seconds * 1000), next(self._count), timer))
        return timer

    def advance(self, ms: int) -> None:
        """Moves on, and calls what is due on the way."""
        end = self._now + ms
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, at)
            if timer.call is not None:
                timer.call()
        self._now = end


class ListWire:
    """A wire that keeps what is written, decoded."""

    def __init__(self, codec: Codec = JSON_CODEC) -> None:
        self.codec = codec
        self.received: list[dict[str, Any]] = []
        self.congested = False
        self.closed_with: CloseCode | None = None
        self._changed = asyncio.Event()
        self._uncongested = asyncio.Event()

    def frame(self, payload: bytes) -> bytes:
        """Length-prefixed."""
        return len(payload).to_bytes(4, "big") + payload

    def write(self, frames: bytes) -> None:
        """Decodes whole frames."""
        if self.closed:
            return
        while frames:
            size = int.from_bytes(frames[:4], "big")
            payload, frames = frames[4 : 4 + size], frames[4 + size :]
            value: Any = self.codec.decode(payload.decode() if self.codec.text else payload)
            self.received.append(value)
        self._changed.set()

    async def drained(self) -> None:
        """Waits until the test ends the congestion."""
        while self.congested and not self.closed:
            self._uncongested.clear()
            await self._uncongested.wait()

    def flow(self) -> None:
        """The reader reads again."""
        self.congested = False
        self._uncongested.set()

    def close(self, code: CloseCode, reason: str) -> None:
        """Remembers the code."""
        self.closed_with = self.closed_with or code
        self._changed.set()
        self._uncongested.set()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.closed_with is not None

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message received, ever, that is `wanted`."""
        async with asyncio.timeout(10):
            while True:
                for message in self.received:
                    if wanted(message):
                        return message
                self._changed.clear()
                await self._changed.wait()

    async def event(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The first message of a type with these fields."""
        return await self.until(
            lambda message: message["type"] == kind and all(message.get(name) == fields[name] for name in fields)
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log's entries among what was received."""
        return [message for message in self.received if "seq" in message and "." in message["type"] + "."[:0]]


class Device:
    """A client of a session without a network: it joins, sends commands, and keeps what it is sent."""

    def __init__(self, session: Session, *, principal: str = "ana", device: str = "d1", codec: Codec = JSON_CODEC) -> None:
        self.session = session
        self.principal = principal
        self.device = device
        self.wire = ListWire(codec)
        self.subscriber = Subscriber(f"c-{device}", principal, device, 0, self.wire, messages=50)

    async def join(self, cursor: dict[str, Any] | None = None) -> Device:
        """Joins and is live."""
        parsed = None if cursor is None else Cursor.model_validate(cursor)
        await self.session.join(self.subscriber, parsed, {"type": "welcome"})
        return self

    def leave(self) -> None:
        """Drops the connection."""
        self.session.leave(self.subscriber)

    async def send(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Sends a command and returns its ack, or its error as a message."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def answered(outcome: Any) -> None:
            if isinstance(outcome, CommandError):
                answer.set_result({"type": "error", "code": outcome.code, "path": outcome.path})
            else:
                answer.set_result(outcome)

        command: Any = parse_command({"type": kind, **fields})
        self.session.submit(Ask(self.principal, self.device, command), answered)
        async with asyncio.timeout(10):
            return await answer

    def cursor(self) -> dict[str, Any]:
        """Where it stands."""
        last = next(message for message in reversed(self.wire.received) if "seq" in message and "at" in message)
        epoch = next(message["epoch"] for message in reversed(self.wire.received) if "epoch" in message)
        return {"epoch": epoch, "seq": last["seq"], "at": last["at"]}
