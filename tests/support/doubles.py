"""Stand-ins for tests of the server: a clock turned by hand, a wire that is a list, agents that wait to be told."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

from holdfast.protocol import JSON_CODEC, CloseCode, Codec, CommandError
from holdfast.protocol.commands import Cursor, parse_command
from holdfast.protocol.control import Ack
from holdfast.protocol.events import EVENT_TYPES, Message
from holdfast.server.agents.run import Run
from holdfast.server.registry import Ask
from holdfast.server.session.actor import Session
from holdfast.server.session.subscriber import Subscriber
from tests.support.client_model import Reader

MOST_CALLS = 100_000
"""Timers that one `advance` may call."""


class FakeTimer:
    """A call on the fake clock."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """It is not called any more."""
        self.call = None


class FakeClock:
    """A clock that stands still until `advance`. Its wall can be set, as people and time servers do."""

    def __init__(self, now: int = 1_000_000) -> None:
        self._now = now
        self._set_by = 0
        self._timers: list[tuple[int, int, FakeTimer]] = []
        self._count = count()

    def now(self) -> int:
        """Milliseconds."""
        return self._now + self._set_by

    def monotonic(self) -> float:
        """Seconds."""
        return self._now / 1000

    def set_wall(self, by_ms: int) -> None:
        """The wall clock is set forward, or back; no time passes."""
        self._set_by += by_ms

    def call_later(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        """Calls when `advance` gets there."""
        timer = FakeTimer(call)
        heapq.heappush(self._timers, (self._now + round(seconds * 1000), next(self._count), timer))
        return timer

    def advance(self, ms: int) -> None:
        """Moves on, and calls what is due on the way; a timer that is set again without end is a defect."""
        end, called = self._now + ms, 0
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            called += 1
            assert called <= MOST_CALLS, f"the clock does not get past {at} ms: {self.left[:3]}"
            self._now = max(self._now, at)
            if timer.call is not None:
                call, timer.call = timer.call, None
                call()
        self._now = end

    async def pass_ms(self, ms: int, step: int = 100) -> None:
        """Moves on in steps, and lets happen what follows from each."""
        for start in range(0, ms, step):
            self.advance(min(step, ms - start))
            await settled()

    @property
    def waiting(self) -> int:
        """How many timers wait."""
        return len(self.left)

    @property
    def left(self) -> list[str]:
        """What the timers that wait would call."""
        calls = [timer.call for _, _, timer in self._timers if timer.call is not None]
        return [getattr(call, "__qualname__", repr(call)) for call in calls]


class NodeClock:
    """The common clock, read as even or odd milliseconds: no two nodes ever write in the same one.

    If they did, an event that took the place of a lost one could carry the same time, and no cursor would tell.
    """

    def __init__(self, clock: FakeClock, *, odd: bool) -> None:
        self._clock = clock
        self._odd = odd

    def now(self) -> int:
        """Milliseconds."""
        return self._clock.now() // 2 * 2 + self._odd

    def monotonic(self) -> float:
        """Seconds."""
        return self._clock.monotonic()

    def call_later(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        """Calls when the common clock gets there."""
        return self._clock.call_later(seconds, call)


class ListWire:
    """A wire that keeps what is written, decoded."""

    def __init__(self, codec: Codec = JSON_CODEC, heard: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.codec = codec
        self.received: list[dict[str, Any]] = []
        self.congested = False
        self.closed_with: CloseCode | None = None
        self._heard = heard
        self._changed = asyncio.Event()
        self._uncongested = asyncio.Event()

    @property
    def transmit(self) -> Callable[[bytes], object] | None:
        """How it is written to while it takes what it is given."""
        return None if self.congested or self.closed else self.write

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
            if self._heard is not None:
                self._heard(value)
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
        return [message for message in self.received if message["type"] in EVENT_TYPES]


class Device:
    """A client of a session without a network: it joins, sends commands, and keeps what it is sent.

    Its `reader` checks everything it is sent, over all connections: nothing missed, doubled or out of order.
    """

    def __init__(
        self, session: Session, *, principal: str = "ana", device: str = "d1", codec: Codec = JSON_CODEC
    ) -> None:
        self.session = session
        self.principal = principal
        self.device = device
        self.reader = Reader()
        self.breaches: list[AssertionError] = []
        """Promises that what it was sent has broken."""
        self.heard: Callable[[Ask, Ack | CommandError], None] | None = None
        """Called with the answer, as it is given, of every command sent from now on."""
        self.connect(session, codec)

    def connect(self, session: Session, codec: Codec = JSON_CODEC) -> None:
        """Takes a new connection, which has not joined yet."""
        self.session = session
        self.wire = ListWire(codec, self._receive)
        self.subscriber = Subscriber(f"c-{self.device}", self.principal, self.device, 0, self.wire, messages=50)

    def _receive(self, message: dict[str, Any]) -> None:
        try:
            self.reader.receive(message)
        except AssertionError as error:  # it belongs to the test, and not to the session that wrote this
            self.breaches.append(error)

    def check(self) -> None:
        """Raises the first breach."""
        if self.breaches:
            raise self.breaches[0]

    async def join(self, cursor: dict[str, Any] | None = None) -> Device:
        """Joins and is live."""
        parsed = None if cursor is None else Cursor.model_validate(cursor)
        await self.session.join(self.subscriber, parsed, {"type": "welcome"})
        return self

    async def resume(self, session: Session | None = None, codec: Codec = JSON_CODEC) -> Device:
        """Comes back over a new connection, from where it stands."""
        self.connect(session or self.session, codec)
        return await self.join(self.cursor())

    def leave(self) -> None:
        """Drops the connection."""
        self.wire.close(CloseCode.HEARTBEAT_MISSED, "the line is cut")
        self.session.leave(self.subscriber)

    def ask(self, kind: str, **fields: Any) -> asyncio.Future[dict[str, Any]]:
        """Sends a command; its ack, or its error as a message, comes later."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        subscriber = self.subscriber

        def answered(outcome: Ack | CommandError) -> None:
            message: dict[str, Any]
            if isinstance(outcome, CommandError):
                message = {
                    "type": "error",
                    "id": fields.get("id"),
                    "code": outcome.code,
                    "path": outcome.path,
                    "retryable": outcome.retryable,
                }
            else:
                message = {**outcome}
            if subscriber in session.subscribers.present:
                subscriber.control(message)
            if heard is not None:
                heard(asked, outcome)
            answer.set_result(message)

        session, heard = self.session, self.heard
        command: Any = parse_command({"type": kind, **fields})
        asked = Ask(self.principal, self.device, command)
        session.submit(asked, answered)
        return answer

    async def send(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Sends a command and returns its ack, or its error as a message."""
        async with asyncio.timeout(10):
            return await self.ask(kind, **fields)

    async def history(self, before: int | None = None, limit: int = 200) -> list[dict[str, Any]]:
        """The pages that answer it."""
        return [page async for page in await self.session.history("h", before, limit)]

    def cursor(self) -> dict[str, Any] | None:
        """Where it stands; None if it was sent nothing yet."""
        return self.reader.cursor

    @property
    def messages(self) -> list[Message]:
        """What it shows."""
        self.check()
        return self.reader.transcript.messages()

    def text(self, run_id: str) -> str:
        """What it shows of the text of a run's answer."""
        parts = [part for message in self.messages if is_answer(message, run_id) for part in message["parts"]]
        return "".join(str(part["text"]) for part in parts if part["kind"] == "text")


def is_answer(message: Message, run_id: str) -> bool:
    """Whether it is the answer of that run."""
    return message["role"] == "assistant" and message.get("runId") == run_id


async def settled(rounds: int = 60) -> None:
    """Lets everything happen that waits for nothing but the event loop."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class Call:
    """One call of a `Puppet`: what it does next is the test's to say."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.prompt: list[dict[str, Any]] = [{**message} for message in run.messages]
        """The messages as they were when it was called."""
        self.stopped_by: BaseException | None = None
        """What ended it, where that was not the test."""
        self.ended = asyncio.Event()
        self.said: list[str] = []
        """What it yielded and the server took."""
        self._steps: asyncio.Queue[object] = asyncio.Queue()

    def say(self, *texts: object) -> None:
        """It yields these, one after the other."""
        for text in texts:
            self._steps.put_nowait(text)

    def end(self) -> None:
        """It returns."""
        self._steps.put_nowait(None)

    def fail(self, error: Exception) -> None:
        """It raises."""
        self._steps.put_nowait(error)

    async def work(self) -> AsyncIterator[Any]:
        """The agent's part."""
        try:
            while True:
                step = await self._steps.get()
                if step is None:
                    return
                if isinstance(step, Exception):
                    raise step
                yield step
                self.said.append(str(step))
        except BaseException as error:
            self.stopped_by = error
            raise
        finally:
            self.ended.set()


class Puppet:
    """An agent, an async generator of strings, that does what the test tells each of its calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._called = asyncio.Event()

    def __call__(self, run: Run) -> AsyncIterator[str]:
        """The agent function."""
        call = Call(run)
        self.calls.append(call)
        self._called.set()
        return call.work()

    async def call(self, number: int = 0) -> Call:
        """The call of that number, when it has been made."""
        async with asyncio.timeout(10):
            while len(self.calls) <= number:
                self._called.clear()
                await self._called.wait()
        return self.calls[number]
