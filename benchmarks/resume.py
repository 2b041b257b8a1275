"""How long a client that comes back waits, from its `hello` to `caughtUp`, for a run that goes on.

    python -m benchmarks.resume --chunks 10000 --length 200000

By snapshot, the cost is that of the text: a run that said it in ten thousand chunks and one that said it in a hundred
are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from benchmarks._load import Target, frame_of, new_session
from benchmarks._pace import MARK
from benchmarks._processes import Child, child, run
from benchmarks._readers import Reader
from benchmarks._table import Row, show
from holdfast.protocol.codec import JSON_CODEC


async def article(server: Child, length: int, chunks: int) -> str:
    """A session whose run has said its text, and goes on."""
    session = new_session()
    reader = await Target("holdfast", server).joined(session, "json")
    metadata = {"length": length, "chunks": chunks}
    send = {"type": "send", "id": f"r-{session}", "text": "go", "agent": "article", "metadata": metadata}
    await reader.ask(frame_of(send, "json"), b"started")
    await reader.ask(b"", MARK)  # the last thing it says
    reader.close()
    return session


async def resumed(server: Child, session: str) -> tuple[float, int]:
    """Seconds from the hello until the bytes up to `caughtUp` were there; and the session's head."""
    reader = await Reader.connect(server.port, f"/v1/sessions/{session}", JSON_CODEC.subprotocol)
    began = time.perf_counter()
    answer = await reader.ask(frame_of({"type": "hello"}, "json"), b"caughtUp")
    took = time.perf_counter() - began
    reader.close()
    head = answer.partition(b'"head":')[2]
    return took, int(head[: head.index(b",")])


async def resume(length: int, chunks: int, count: int) -> None:
    """Prints the table."""
    async with child("benchmarks._server") as server:
        many, few = await article(server, length, chunks), await article(server, length, 100)
        times: dict[str, list[float]] = {many: [], few: []}
        heads: dict[str, int] = {}
        for _ in range(count):
            for session in (many, few):
                took, heads[session] = await resumed(server, session)
                times[session].append(took * 1000)
                await asyncio.sleep(0.02)
    show(
        f"resume: hello to caughtUp by snapshot, {length:,} characters, {count} times each",
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=200_000)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=50)
    given = parser.parse_args()
    run(resume(given.length, given.chunks, given.times))
