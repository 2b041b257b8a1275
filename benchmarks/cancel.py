"""How long after `await run.cancel()` was called the model server sees its connection close, beside other work.

    python -m benchmarks.cancel --background 100 --times 120 --aged 40
    python -m benchmarks.cancel --times 40 --aged 8    # a quick look

The client is Holdfast's, the agent is `openai`, the model server is a third process. Runs are stopped at several ages,
from the moment they are acknowledged on, while other runs of the same server stream 5,000 chunks a second. After each
acknowledgement the run is watched: nothing of it may come any more. Then runs are stopped that have 100, 10,000 and
50,000 events in the log already: that must take as long. Making them is what takes time here, some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence

from benchmarks._load import Holdfast, Load, measure, new_session
from benchmarks._processes import Child, child, load_core, run
from benchmarks._table import Row, show
from holdfast.client import Lagged, Reset, Run, Session, connect

_AGES = (0.0, 0.01, 0.1, 0.5, 2.0)
_AT_ONCE = 4
_EVENTS = (100, 10_000, 50_000)
_MADE_AT_ONCE = 8
"""Runs with so many events; then a new server takes over: the log of a run stays in memory for a while."""
_P50_MS, _P99_MS = 1.2, 3.0


class Closings:
    """What the model server says of its requests' ends."""

    def __init__(self, upstream: Child) -> None:
        self._upstream = upstream
        self._at: dict[str, asyncio.Future[int]] = {}

    def of(self, name: str) -> asyncio.Future[int]:
        """When the connection of the request of this name closed, in ns."""
        return self._at.setdefault(name, asyncio.get_running_loop().create_future())

    async def read(self) -> None:
        """Takes the lines in until it is cancelled."""
        while line := await self._upstream.line():
            _, name, at, _ = line.split()
            future = self.of(name)
            if not future.done():
                future.set_result(int(at))


async def chunks_seen(session: Session, seqs: list[int]) -> None:
    """Notes the seq of every chunk, until it is cancelled."""
    async for event in session.events():
        if not isinstance(event, (Reset, Lagged)) and event["type"] == "run.chunk":
            seqs.append(event["seq"])


async def stopped(server: Child, closings: Closings, age: float) -> tuple[float | None, float, int]:
    """Seconds from the call to the closing (None where no request was ever made) and to the ack; chunks after it."""
    name = new_session()
    async with connect(f"ws://127.0.0.1:{server.port}", session=name) as session:
        return await stop(session, await session.send(name, agent="openai"), closings.of(name), age)


async def stopped_aged(server: Child, closings: Closings, name: str) -> tuple[float | None, float, int]:
    """The same of a run that is there already."""
    async with connect(f"ws://127.0.0.1:{server.port}", session=name) as session:
        await session.wait_live()
        (running,) = session.runs.values()
        return await stop(session, running, closings.of(name), 0.2)


async def stop(
    session: Session, running: Run, closing: asyncio.Future[int], age: float
) -> tuple[float | None, float, int]:
    """See `stopped`."""
    seqs: list[int] = []
    watching = asyncio.create_task(chunks_seen(session, seqs))
    await asyncio.sleep(age)
    called = time.monotonic_ns()
    outcome = await running.cancel(seen=None)
    acknowledged = time.monotonic_ns()
    assert outcome.outcome == "cancelled", outcome
    position = session.position["seq"]
    try:
        async with asyncio.timeout(1.0):
            closed: float | None = (await closing - called) / 1e9
    except TimeoutError:
        closed = None
    await asyncio.sleep(0.3)
    watching.cancel()
    late = sum(seq > position for seq in seqs)
    return closed, (acknowledged - called) / 1e9, late


async def trials(
    server: Child, closings: Closings, times: int, beside: int
) -> dict[float, list[tuple[float | None, float, int]]]:
    """By age."""
    target = Holdfast("holdfast", server)
    seconds = 4 + times * (sum(_AGES) / len(_AGES) + 0.5) / _AT_ONCE
    load = Load(beside, 50, seconds=seconds)
    loading = asyncio.create_task(measure(target, load)) if beside else None
    await asyncio.sleep(3 if beside else 0)
    taken: dict[float, list[tuple[float | None, float, int]]] = {age: [] for age in _AGES}
    ages = [_AGES[number % len(_AGES)] for number in range(times)]

    async def some() -> None:
        while ages:
            age = ages.pop()
            taken[age].append(await stopped(server, closings, age))

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    if loading is not None:
        sample = await loading
        print(f"  beside {sample.chunks_per_second:,.0f} chunks/s, {sample.cpu_share:.0%} of the server's core")
    return taken


def at(values: Sequence[float], quantile: float) -> float:
    """The value that this share did not exceed, in ms."""
    return sorted(values)[min(len(values) - 1, int(len(values) * quantile))] * 1000


async def trials_aged(url: str, closings: Closings, events: int, times: int, beside: int) -> list[float]:
    """Seconds to the closing of runs that have so many events in the log."""
    taken: list[float] = []
    while len(taken) < times:
        async with child("benchmarks._server", "--model-url", url) as server:
            target = Holdfast("holdfast", server)
            names = [new_session() for _ in range(min(_MADE_AT_ONCE, times - len(taken)))]
            await asyncio.gather(*(target.hear("aged", session=name, events=events) for name in names))
            loading = asyncio.create_task(measure(target, Load(beside, 50, seconds=4 + len(names)))) if beside else None
            await asyncio.sleep(3)
            for name in names:
                closed, _, late = await stopped_aged(server, closings, name)
                assert closed is not None
                assert not late
                taken.append(closed)
            if loading is not None:
                await loading
    return taken


async def cancel(beside: int, times: int, aged: int) -> None:
    """Prints the tables."""
    async with child(
        "benchmarks._upstream", "--pace", "0.02", "--chunks", "3000", "--tells", core=load_core()
    ) as upstream:
        url = f"http://127.0.0.1:{upstream.port}/v1"
        async with child("benchmarks._server", "--model-url", url) as server:
            closings = Closings(upstream)
            reading = asyncio.create_task(closings.read())
            await stopped(server, closings, 0.1)  # the first request pays for imports and certificates
            for runs in dict.fromkeys((0, beside)):
                taken = await trials(server, closings, times, runs)
                closed = [one[0] for some in taken.values() for one in some if one[0] is not None]
                acks = [one[1] for some in taken.values() for one in some]
                rows = [
                    Row("p50, call to upstream closed", at(closed, 0.5), "ms", _P50_MS),
                    Row("p99", at(closed, 0.99), "ms", _P99_MS),
                    Row("p50, call to ack", at(acks, 0.5), "ms"),
                    Row("p99", at(acks, 0.99), "ms"),
                    Row("chunks after the ack", sum(one[2] for some in taken.values() for one in some), "", 0),
                ]
                for age, some in taken.items():
                    values = [one[0] for one in some if one[0] is not None]
                    if values:
                        never = len(some) - len(values)
                        note = f"{never} had not asked yet" if never else ""
                        rows.append(
                            Row(f"p50 at the age of {age:g} s", statistics.median(values) * 1000, "ms", note=note)
                        )
                show(f"cancel: {times} runs stopped beside {runs * 50:,} chunks/s", rows)
        aging: list[Row] = []
        for events in _EVENTS if aged else ():
            closed = await trials_aged(url, closings, events, aged, beside)
            aging.append(Row(f"p50, {events:,} events", at(closed, 0.5), "ms", _P50_MS))
            aging.append(Row("p99", at(closed, 0.99), "ms", _P99_MS))
        if aging:
            show(f"cancel: call to upstream closed, {aged} runs of each age beside {beside * 50:,} chunks/s", aging)
        reading.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--background", type=int, default=100)
    parser.add_argument("--times", type=int, default=120)
    parser.add_argument("--aged", type=int, default=40, help="runs of each number of events; 0: none")
    given = parser.parse_args()
    run(cancel(given.background, given.times, given.aged))
