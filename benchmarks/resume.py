"""How long a client that comes back waits, from its `hello` to `caughtUp`, for a run that goes on.

    python -m benchmarks.resume --chunks 10000 --length 200000

By snapshot, the cost is that of the text: a run that said it in ten thousand chunks and one that said it in a hundred
are compared. By log it is that of the events; what counts then is for how long at a time everybody else has to wait.
The server takes that time itself, as CPU time of its event loop's thread between two turns of the loop.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import time
from dataclasses import dataclass
from typing import Any, Final

from benchmarks._load import MEMORY, SQLITE, Holdfast, Launch, frame_of, new_session
from benchmarks._pace import MARK
from benchmarks._processes import run
from benchmarks._readers import Reader
from benchmarks._table import Row, show
from holdfast.protocol.codec import JSON_CODEC

_STARTED: Final = re.compile(rb'"type":"run.started","seq":(\d+),"at":(\d+)')
_EPOCH: Final = re.compile(rb'"epoch":"([^"]+)"')
_WATCH_SECONDS: Final = 0.4


@dataclass(frozen=True, slots=True)
class Article:
    """A session whose run has said its text, and goes on; and the cursor of who left when it began."""

    session: str
    cursor: dict[str, Any]


async def article(target: Holdfast, length: int, chunks: int) -> Article:
    """Lets it be written, and waits for that."""
    session = new_session()
    reader = await Reader.connect(target.child.port, f"/v1/sessions/{session}", JSON_CODEC.subprotocol)
    welcome = await reader.ask(frame_of({"type": "hello"}, "json"), b"caughtUp")
    metadata = {"length": length, "chunks": chunks}
    send = {"type": "send", "id": f"r-{session}", "text": "go", "agent": "article", "metadata": metadata}
    said = await reader.ask(frame_of(send, "json"), MARK + b'"', seconds=300)
    reader.close()
    started, epoch = _STARTED.search(said), _EPOCH.search(welcome)
    assert started is not None
    assert epoch is not None
    return Article(session, {"epoch": epoch[1].decode(), "seq": int(started[1]), "at": int(started[2])})


async def resumed(target: Holdfast, session: str, cursor: dict[str, Any] | None = None) -> tuple[float, int]:
    """Seconds from the hello until the bytes up to `caughtUp` were there; and the session's head."""
    reader = await Reader.connect(target.child.port, f"/v1/sessions/{session}", JSON_CODEC.subprotocol)
    hello = {"type": "hello"} if cursor is None else {"type": "hello", "cursor": cursor}
    began = time.perf_counter()
    answer = await reader.ask(frame_of(hello, "json"), b"caughtUp")
    took = time.perf_counter() - began
    reader.close()
    resume = b"snapshot" if cursor is None else b"tail"
    assert b'"resume":"%b"' % resume in answer, "the server has brought it by another way"
    head = answer.partition(b'"head":')[2]
    return took, int(head[: head.index(b",")])


async def longest_hold(target: Holdfast, written: Article) -> float:
    """The longest turn of the server's loop, in ms, while somebody joins by log."""
    watching = asyncio.create_task(target.hear("holds", seconds=_WATCH_SECONDS))
    await asyncio.sleep(0.1)
    await resumed(target, written.session, written.cursor)
    longest: float = await watching
    return longest


async def by_snapshot(way: Launch, length: int, chunks: int, count: int) -> None:
    """Prints the table of joins by snapshot."""
    async with way.started() as target:
        assert isinstance(target, Holdfast)
        many, few = (await article(target, length, chunks)).session, (await article(target, length, 100)).session
        times: dict[str, list[float]] = {many: [], few: []}
        heads: dict[str, int] = {}
        for _ in range(count):
            for session in (many, few):
                took, heads[session] = await resumed(target, session)
                times[session].append(took * 1000)
                await asyncio.sleep(0.02)
    show(
        f"resume: hello to caughtUp by snapshot, {length:,} characters, {way.name} store, {count} times each",
        [
            Row(f"p50, {heads[many]:,} events", statistics.median(times[many]), "ms", 20.0),
            Row("worst", max(times[many]), "ms"),
            Row(
                f"p50, to that of {heads[few]:,} events",
                statistics.median(times[many]),
                "ms",
                1.3,
                statistics.median(times[few]),
            ),
        ],
    )


async def by_log(way: Launch, length: int, chunks: int, count: int) -> None:
    """Prints the table of joins by log."""
    async with way.started() as target:
        assert isinstance(target, Holdfast)
        written = await article(target, length, chunks)
        took, head = await resumed(target, written.session, written.cursor)
        times = [took]
        for _ in range(count - 1):
            times.append((await resumed(target, written.session, written.cursor))[0])
            await asyncio.sleep(0.02)
        holds = [await longest_hold(target, written) for _ in range(count)]
    show(
        f"resume: by log, {head - written.cursor['seq']:,} events, {way.name} store, {count} times",
        [
            Row("p50, hello to caughtUp", statistics.median(times) * 1000, "ms"),
            Row("longest hold of the loop, median", statistics.median(holds), "ms", 5.0),
            Row("worst", max(holds), "ms", 5.0),
        ],
    )


async def resume(length: int, chunks: int, count: int) -> None:
    """Prints the tables."""
    await by_snapshot(MEMORY, length, chunks, count)
    for way in (MEMORY, SQLITE):
        await by_log(way, length, chunks, count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=200_000)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=50)
    given = parser.parse_args()
    run(resume(given.length, given.chunks, given.times))
