"""What an idle connection costs, and what many of them do to a full garbage collection.

    python -m benchmarks.connections --idle 2000 --many 5000

Memory is what belongs to the server's process alone. The floor is a bare `websockets` server. Holdfast is measured
with a hundred connections to a session, where the connection is what costs, and with one to a session, where the
session's actor is part of it.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from benchmarks._load import Floor, Holdfast, Target, new_session
from benchmarks._processes import Child, child, run
from benchmarks._readers import Reader, close_all
from benchmarks._table import Row, show

_AT_ONCE = 100


async def connect(target: Target, sessions: Sequence[str]) -> list[Reader]:
    """A connection to each, some at a time."""
    readers: list[Reader] = []
    for start in range(0, len(sessions), _AT_ONCE):
        some = sessions[start : start + _AT_ONCE]
        readers += await asyncio.gather(*(target.joined(session, "json") for session in some))
    return readers


async def memory(target: Target, count: int, per_session: int) -> float:
    """KiB for each of `count` idle connections; those before them have paid for what is shared."""
    warm = await connect(target, [new_session() for _ in range(200 // per_session) for _ in range(per_session)])
    await asyncio.sleep(2)
    before = target.child.private_bytes
    names = [new_session() for _ in range(count // per_session)]
    readers = await connect(target, [name for name in names for _ in range(per_session)])
    await asyncio.sleep(2)
    used = target.child.private_bytes - before
    close_all([*warm, *readers])
    return used / len(readers) / 1024


async def longest_collections(server: Child, connections: int) -> list[float]:
    """Of each generation, in ms, with so many connections, under churn and by force."""
    target = Holdfast("holdfast", server)
    readers = await connect(target, [new_session() for _ in range(connections)])
    await asyncio.sleep(1)
    longest: list[float] = await target.hear("collections")
    close_all(readers)
    return longest


async def connections(idle: int, many: int) -> None:
    """Prints the table."""
    async with child("benchmarks._floor", "--by", "send") as floor:
        bare = await memory(Floor("floor", floor), idle, 1)
    async with child("benchmarks._server") as server:
        shared = await memory(Holdfast("holdfast", server), idle, 100)
    async with child("benchmarks._server") as server:
        alone = await memory(Holdfast("holdfast", server), idle, 1)
    async with child("benchmarks._server") as server:
        young, middle, full = await longest_collections(server, many)
    show(
        f"connections: {idle:,} idle ones, and collections with {many:,}",
        [
            Row("memory, 100 to a session", shared, "KiB", 1.3, bare),
            Row("memory, each with its session", alone, "KiB", None, bare),
            Row("longest young collection", young, "ms", 20.0),
            Row("longest middle collection", middle, "ms", 20.0),
            Row("longest full collection", full, "ms", 20.0, note="forced; see the README"),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=2_000)
    parser.add_argument("--many", type=int, default=5_000)
    given = parser.parse_args()
    run(connections(given.idle, given.many))
