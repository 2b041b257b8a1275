"""One load, against any of the servers: so many runs, so many readers each, and what that cost."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from benchmarks._pace import Pace
from benchmarks._processes import Child
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
    delays: list[float] = field(default_factory=list[float])

    def delay_ms(self, quantile: float) -> float:
        """The delay that this share of the chunks did not exceed, in ms."""
        return self.delays[min(len(self.delays) - 1, int(len(self.delays) * quantile))] * 1000


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load. `agent` is None for a floor."""

    name: str
    child: Child
    agent: str | None = "paced"

    async def joined(self, session: str, encoding: Encoding) -> Reader:
        """A connection that is live."""
        if self.agent is None:
            reader = await Reader.connect(self.child.port, "/", None)
            await reader.ask(masked(b"{}"), b"{}")
            return reader
        codec = _CODECS[encoding]
        reader = await Reader.connect(self.child.port, f"/v1/sessions/{session}", codec.subprotocol)
        await reader.ask(frame_of({"type": "hello"}, encoding), b"caughtUp")
        return reader

    async def begin(self, readers: Sequence[Reader], session: str, load: Load, pace: Pace) -> None:
        """Makes a run's chunks begin."""
        if self.agent is not None:
            send = {"type": "send", "id": f"r-{session}", "text": "go", "agent": self.agent}
            message = {**send, "metadata": {"pace": pace.plain()}}
            await readers[0].ask(frame_of(message, load.encoding), b"started")
            return
        wish = {"session": session, "readers": load.readers, "encoding": load.encoding, "pace": pace.plain()}
        await asyncio.gather(*(reader.ask(masked(json.dumps(wish).encode()), b"{}") for reader in readers))


def frame_of(message: dict[str, Any], encoding: Encoding) -> bytes:
    """A command's frame."""
    codec = _CODECS[encoding]
    return masked(codec.encode(message), text=codec.text)


def new_session() -> str:
    """A session that was not there before."""
    return f"bench-{next(_NUMBERS)}"


async def measure(target: Target, load: Load) -> Sample:
    """Puts the load on the server, and takes what it uses in the time after the warming up."""
    rooms = {new_session(): number for number in range(load.runs)}
    joined: dict[str, list[Reader]] = {}
    for session in rooms:
        joined[session] = await asyncio.gather(*(target.joined(session, load.encoding) for _ in range(load.readers)))
    readers = [reader for room in joined.values() for reader in room]
    try:
        await asyncio.gather(
            *(target.begin(joined[session], session, load, load.pace(number)) for session, number in rooms.items())
        )
        await asyncio.sleep(load.warm_seconds)
        loop = asyncio.get_running_loop()
        for reader in readers if load.timed else ():
            reader.delays = []
        began, cpu, chunks = loop.time(), target.child.cpu_seconds, sum(reader.chunks for reader in readers)
        await asyncio.sleep(load.seconds)
        took, cpu = loop.time() - began, target.child.cpu_seconds - cpu
        chunks = (sum(reader.chunks for reader in readers) - chunks) // load.readers
        delays = sorted(delay for reader in readers for delay in reader.delays or ())
        if any(reader.lost for reader in readers):
            raise RuntimeError(f"{target.name} lost connections under the load")
    finally:
        close_all(readers)
    await asyncio.sleep(0.7)  # what is left of the runs, and of the connections
    return Sample(cpu / chunks * 1e6, chunks / took, cpu / took, delays)


async def rounds(targets: Sequence[Target], load: Load, count: int) -> dict[str, list[Sample]]:
    """Measures all in turn, so many times, there and back: what changes on the machine meanwhile meets all alike."""
    samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
    for number in range(count):
        for target in targets if number % 2 == 0 else reversed(targets):
            samples[target.name].append(await measure(target, load))
    return samples


def median_cpu(samples: Sequence[Sample]) -> float:
    """CPU µs per chunk."""
    return statistics.median(sample.cpu_us_per_chunk for sample in samples)
