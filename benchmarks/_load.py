"""One load, against any of the servers: so many runs, so many readers each, and what that cost."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from benchmarks._pace import MARK, Pace
from benchmarks._processes import Child, program
from benchmarks._readers import Reader, close_all, masked
from holdfast.protocol.codec import JSON_CODEC, MSGPACK_CODEC, Codec

Encoding: TypeAlias = Literal["json", "msgpack"]
_NUMBERS: Final = itertools.count()
_CODECS: Final[dict[str, Codec]] = {"json": JSON_CODEC, "msgpack": MSGPACK_CODEC}


@dataclass(frozen=True, slots=True)
class Load:
    """`runs` of `per_second` chunks a second each, with `readers` each, measured over `seconds`."""

    runs: int
    per_second: int
    readers: int = 1
    seconds: float = 3.0
    warm_seconds: float = 1.0
    encoding: Encoding = "json"
    timed: bool = False
    """Whether every chunk's time on its way is taken."""

    def pace(self, number: int) -> Pace:
        """The pace of the run of this number: all are shifted evenly against each other."""
        period = 1 / self.per_second
        chunks = round((self.warm_seconds + self.seconds + 0.5) * self.per_second)
        return Pace(period, chunks, phase=period * number / self.runs)


@dataclass(slots=True)
class Sample:
    """What one load cost. `delays` are seconds, sorted; empty where they were not taken."""

    cpu_us_per_chunk: float
    chunks_per_second: float
    cpu_share: float
    seconds: float
    delays: list[float] = field(default_factory=list[float])

    def delay_ms(self, quantile: float) -> float:
        """The delay that this share of the chunks did not exceed, in ms."""
        return self.delays[min(len(self.delays) - 1, int(len(self.delays) * quantile))] * 1000


class Target(ABC):
    """A server under load, as the load speaks to it."""

    def __init__(self, name: str, child: Child) -> None:
        self.name = name
        self.child = child

    @abstractmethod
    async def joined(self, session: str, encoding: Encoding) -> Reader:
        """A connection that is live."""

    @abstractmethod
    async def begin(self, readers: Sequence[Reader], session: str, load: Load, pace: Pace) -> None:
        """Makes a run's chunks begin."""


class Floor(Target):
    """The bare server."""

    async def joined(self, session: str, encoding: Encoding) -> Reader:
        """See `Target`."""
        reader = await Reader.connect(self.child.port, "/", None)
        await reader.ask(masked(b"{}"), b"{}")
        return reader

    async def begin(self, readers: Sequence[Reader], session: str, load: Load, pace: Pace) -> None:
        """See `Target`."""
        wish = {"session": session, "readers": load.readers, "encoding": load.encoding, "pace": pace.plain()}
        await asyncio.gather(*(reader.ask(masked(json.dumps(wish).encode()), b"{}") for reader in readers))


class Holdfast(Target):
    """Holdfast, with one of the agents that `_agents` has."""

    def __init__(self, name: str, child: Child, agent: str = "paced") -> None:
        super().__init__(name, child)
        self.agent = agent

    async def joined(self, session: str, encoding: Encoding) -> Reader:
        """See `Target`."""
        codec = _CODECS[encoding]
        reader = await Reader.connect(self.child.port, f"/v1/sessions/{session}", codec.subprotocol)
        await reader.ask(frame_of({"type": "hello"}, encoding), b"caughtUp")
        return reader

    async def begin(self, readers: Sequence[Reader], session: str, load: Load, pace: Pace) -> None:
        """See `Target`."""
        message = _send(session, self.agent, {"pace": pace.plain()})
        await readers[0].ask(frame_of(message, load.encoding), b"started")

    async def hear(self, agent: str, *, session: str | None = None, **metadata: Any) -> Any:
        """Runs an agent, and returns what it tells; the run may go on."""
        session = session or new_session()
        reader = await self.joined(session, "json")
        send = frame_of(_send(session, agent, metadata), "json")
        said = await reader.ask(send, MARK + b'"', seconds=300)  # some have much to do before they tell
        reader.close()
        return json.loads(bytes.fromhex(said.split(MARK)[-2].decode()))


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a server of its own for one measuring. `DIRECTORY` in its command is an empty one, of its own."""

    name: str
    command: Sequence[str | Path]
    target: Callable[[str, Child], Target]

    @asynccontextmanager
    async def started(self) -> AsyncGenerator[Target]:
        """Runs it while the block lasts."""
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
            command = [str(word).replace("DIRECTORY", directory) for word in self.command]
            async with program(*command) as process:
                yield self.target(self.name, process)


def module(name: str, target: Callable[[str, Child], Target], *command: str) -> Launch:
    """A launch of one of the benchmarks' servers."""
    return Launch(name, [sys.executable, "-m", *command], target)


SEND: Final = module("ws.send", Floor, "benchmarks._floor", "--by", "send")
WRITE: Final = module("bare write", Floor, "benchmarks._floor", "--by", "write")
MEMORY: Final = module("memory", Holdfast, "benchmarks._server")
SQLITE: Final = module("sqlite", Holdfast, "benchmarks._server", "--store", "sqlite:///DIRECTORY/bench.db")


def frame_of(message: dict[str, Any], encoding: Encoding) -> bytes:
    """A command's frame."""
    codec = _CODECS[encoding]
    return masked(codec.encode(message), text=codec.text)


def new_session() -> str:
    """A session that was not there before."""
    return f"bench-{next(_NUMBERS)}"


def _send(session: str, agent: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {"type": "send", "id": f"r-{session}", "text": session, "agent": agent, "metadata": metadata}


async def measure(
    target: Target, load: Load, *, around: Callable[[Callable[[], int]], Awaitable[None]] | None = None
) -> Sample:
    """Puts the load on the server, and takes what it uses in the time after the warming up.

    `around` is called right before and right after that time, with what tells how many chunks have come so far.
    """
    rooms = {new_session(): number for number in range(load.runs)}
    joined: dict[str, list[Reader]] = {}
    for session in rooms:
        joined[session] = await asyncio.gather(*(target.joined(session, load.encoding) for _ in range(load.readers)))
    readers = [reader for room in joined.values() for reader in room]

    def come() -> int:
        return sum(reader.chunks for reader in readers) // load.readers

    try:
        await asyncio.gather(
            *(_begun(target, joined[session], session, load, number) for session, number in rooms.items())
        )
        await asyncio.sleep(load.warm_seconds)
        loop = asyncio.get_running_loop()
        for reader in readers if load.timed else ():
            reader.delays = []
        if around is not None:
            await around(come)
        began, used, chunks = loop.time(), target.child.cpu_seconds, come()
        await asyncio.sleep(load.seconds)
        took, used = loop.time() - began, target.child.cpu_seconds - used
        chunks = come() - chunks
        if around is not None:
            await around(come)
        delays = sorted(delay for reader in readers for delay in reader.delays or ())
        if any(reader.lost for reader in readers):
            raise RuntimeError(f"{target.name} lost connections under the load")
    finally:
        close_all(readers)
    await asyncio.sleep(0.7)  # what is left of the runs, and of the connections
    return Sample(used / chunks * 1e6, chunks / took, used / took, took, delays)


async def _begun(target: Target, readers: Sequence[Reader], session: str, load: Load, number: int) -> None:
    """Somewhen in the period: where a model server sets the pace, a run's phase is when it begins."""
    await asyncio.sleep(random.random() / load.per_second)
    await target.begin(readers, session, load, load.pace(number))


async def launches(ways: Sequence[Launch], loads: Sequence[Load], count: int) -> dict[str, list[list[Sample]]]:
    """Starts every server anew, `count` times, in random order, and measures all loads in each process.

    By name, and of each load what the launches gave: processes of the same code differ by 10 to 20 %, for as long as
    they live, so that many rounds in one process say little.
    """
    samples: dict[str, list[list[Sample]]] = {way.name: [[] for _ in loads] for way in ways}
    for number in range(count):
        for way in random.sample(ways, len(ways)):
            if sys.stderr.isatty():
                print(f"\x1b[K  launch {number + 1} of {count}: {way.name}", end="\r", file=sys.stderr, flush=True)
            async with way.started() as target:
                for taken, load in zip(samples[way.name], loads, strict=True):
                    taken.append(await measure(target, load))
    if sys.stderr.isatty():
        print(end="\x1b[K", file=sys.stderr, flush=True)
    return samples


async def rounds(targets: Sequence[Target], load: Load, count: int) -> dict[str, list[Sample]]:
    """Measures all in turn, so many times, there and back: what changes on the machine meanwhile meets all alike."""
    samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
    for number in range(count):
        for target in targets if number % 2 == 0 else reversed(targets):
            samples[target.name].append(await measure(target, load))
    return samples


def cpu(samples: Sequence[Sample]) -> list[float]:
    """CPU µs per chunk, of each."""
    return [sample.cpu_us_per_chunk for sample in samples]


def median_cpu(samples: Sequence[Sample]) -> float:
    """CPU µs per chunk."""
    return statistics.median(cpu(samples))
