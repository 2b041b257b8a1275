"""A model server for tests, benchmarks and trying things out: OpenAI-compatible, scripted, and as strict as
the real one.

    async with Endpoint() as endpoint:
        endpoint.script(ScriptedResponse(Text("Hel"), Hold(), Text("lo")))
        … a client of `endpoint.base_url` …
        request = await endpoint.request(0)
        await request.wrote(1)       # the first chunk is on the wire
        await request.closed.wait()  # the client's connection is closed; request.closed_at, request.billed

    python tests/support/openai_endpoint.py --port 8001 --pace 0.02

It counts the chunks that it wrote as what it would bill, notes when each connection closed, stops at once
then, and refuses (400) what the real API refuses: dangling tool calls, results without a call, empty
messages, unknown roles.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, cast

if not __package__:  # run as a program
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.openai_rules import chat_fault, responses_fault
from tests.support.openai_streams import ChatWire, Drop, End, Fail, Hold, ResponsesWire, Step, Text

DEFAULT_TEXT: Final = "This is the response of a scripted model server. It says the same to everyone. "


class ScriptedResponse:
    """What is sent for one request: `steps` in order, `pace` seconds apart, then the usage if it was asked
    for.

    Nothing at all is sent before `Endpoint.release` where `late` is set. With a `body`, or an `error` object,
    that is the whole response, with `status` and `headers`, and nothing is streamed.
    """

    def __init__(
        self,
        *steps: Step,
        pace: float = 0,
        late: bool = False,
        status: int = 200,
        error: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.steps: Sequence[Step] = steps
        self.pace = pace
        self.late = late
        self.status = status
        self.body = json.dumps({"error": error}).encode() if error is not None else body
        self.headers = headers or {}


@dataclass(eq=False)
class Request:
    """A request that came in, and what became of it."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    billed: int = 0
    """Chunks of response written so far: the tokens that would be paid for."""
    finished: bool = False
    """The response was sent to its end."""
    closed_at: float | None = None
    """When the client's connection closed, on the clock of time.monotonic."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing will be written any more."""
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def wrote(self, chunks: int) -> None:
        """Returns when so many chunks are on the wire."""
        while self.billed < chunks:
            self._progress.clear()
            await self._progress.wait()

    def bill(self) -> None:
        """Counts a chunk."""
        self.billed += 1
        self._progress.set()


class Endpoint:
    """The server. Requests take the scripted responses in order; without one, a fixed text is said."""

    def __init__(self, *, port: int = 0, pace: float = 0, chunks: int = 40, refuses_usage: bool = False) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        """How many were ever opened."""
        self.refuses_usage = refuses_usage
        self.keeps_requests = True
        """Whether `requests` grows; a benchmark would rather not."""
        self._responses: list[ScriptedResponse] = []
        self._default = ScriptedResponse(*_default_steps(chunks), pace=pace)
        self._port = port
        self._release = asyncio.Event()
        self._arrived = asyncio.Event()
        self._open: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """What a client takes as OPENAI_BASE_URL."""
        return f"http://127.0.0.1:{self._port}/v1"

    def script(self, *responses: ScriptedResponse) -> None:
        """Adds responses for the next requests."""
        self._responses.extend(responses)

    def release(self) -> None:
        """Lets every response that holds go on, now and later."""
        self._release.set()

    async def held(self) -> None:
        """Returns when `release` was called."""
        await self._release.wait()

    async def request(self, number: int) -> Request:
        """The request of that number, from 0, when it has come."""
        while len(self.requests) <= number:
            self._arrived.clear()
            await self._arrived.wait()
        return self.requests[number]

    def accept(self, request: Request) -> ScriptedResponse:
        """Notes a request and chooses its response; one that the real API would refuse is refused."""
        if self.keeps_requests:
            self.requests.append(request)
            self._arrived.set()
        fault = chat_fault(request.body) if request.path.endswith("/chat/completions") else None
        if request.path.endswith("/responses"):
            fault = responses_fault(request.body)
        if self.refuses_usage and "stream_options" in request.body:
            fault = "Unrecognized request argument supplied: stream_options"
        if fault is not None:
            return ScriptedResponse(status=400, error={"message": fault, "type": "invalid_request_error", "code": None})
        return self._responses.pop(0) if self._responses else self._default

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        connections = list(self._open)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.lost.wait() for connection in connections))
        await self._server.wait_closed()

    def opened(self, connection: _Connection) -> None:
        """Keeps count of a connection."""
        self.connections += 1
        self._open.add(connection)

    def lost(self, connection: _Connection) -> None:
        """Forgets a connection."""
        self._open.discard(connection)


class _Connection(asyncio.Protocol):
    """One client's connection: one request after the other, responded to by a task that its loss cancels."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.lost = asyncio.Event()
        self._endpoint = endpoint
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._request: Request | None = None
        self._responding: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._endpoint.opened(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._next()

    def _next(self) -> None:
        head, separator, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not separator or self._responding is not None:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        del self._received[: len(head) + len(separator) + length]
        body = json.loads(rest[:length] or b"{}")
        self._request = Request(first.split()[1], headers, body)
        self._responding = asyncio.create_task(self._respond(self._request), name="response")
        self._responding.add_done_callback(self._responded)

    def eof_received(self) -> bool:
        return False  # a client that stopped sending is gone: close

    def connection_lost(self, exc: Exception | None) -> None:
        if self._request is not None:
            self._request.closed_at = time.monotonic()
            self._request.closed.set()
        if self._responding is not None:
            self._responding.cancel()
        self._endpoint.lost(self)
        self.lost.set()

    def abort(self) -> None:
        """Cuts the connection."""
        assert self._transport is not None
        self._transport.abort()

    def _responded(self, task: asyncio.Task[None]) -> None:
        self._responding = None
        if not task.cancelled():
            task.result()
            self._next()

    def _write(self, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.write(b"%x\r\n%b\r\n" % (len(payload), payload))

    async def _respond(self, request: Request) -> None:
        try:
            response = self._endpoint.accept(request)
            if response.late:
                await self._endpoint.held()
            assert self._transport is not None
            if response.body is not None:
                self._transport.write(_whole(response, response.body))
                return
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            if await self._stream(request, response):
                for _ in range(5):  # real servers send the body's end in a packet of its own, read a little later
                    await asyncio.sleep(0)
                self._transport.write(b"0\r\n\r\n")
                request.finished = True
        finally:
            request.done.set()

    async def _stream(self, request: Request, response: ScriptedResponse) -> bool:
        """Writes the response; False where its connection was cut."""
        wire = ResponsesWire(request.body) if request.path.endswith("/responses") else ChatWire(request.body)
        loop = asyncio.get_running_loop()
        due = loop.time()
        self._write(b"".join(wire.begin()))
        for step in response.steps:
            if isinstance(step, Hold):
                await self._endpoint.held()
                continue
            if isinstance(step, Drop):
                self.abort()
                return False
            if isinstance(step, End):
                return True
            for chunk in wire.chunks(step):
                if response.pace:
                    due += response.pace  # absolute deadlines: a late timer does not slow the pace
                    await asyncio.sleep(max(0, due - loop.time()))
                self._write(chunk)
                request.bill()
            if isinstance(step, Fail):
                return True
        self._write(b"".join(wire.end(request.billed)))
        return True


def _whole(response: ScriptedResponse, body: bytes) -> bytes:
    headers = {"content-type": "application/json", **response.headers, "content-length": str(len(body))}
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} X\r\n{fields}\r\n".encode() + body


def _default_steps(chunks: int) -> list[Text]:
    words = itertools.cycle(f"{word} " for word in DEFAULT_TEXT.split())
    return [Text(word) for word in itertools.islice(words, chunks)]


async def _serve(port: int, pace: float, chunks: int) -> None:
    endpoint = Endpoint(port=port, pace=pace, chunks=chunks)
    endpoint.keeps_requests = False
    async with endpoint:
        sys.stdout.write(f"OPENAI_BASE_URL={endpoint.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An OpenAI-compatible model server with a scripted response.")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--pace", type=float, default=0.02, help="seconds between two chunks")
    parser.add_argument("--chunks", type=int, default=120, help="chunks of each response")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments.port, arguments.pace, arguments.chunks))
