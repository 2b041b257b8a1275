"""How much of a core a server uses whose runs all stream from an OpenAI-compatible model: 200 runs of 50 tokens/s.

    python -m benchmarks.openai_runs --runs 200

`benchmarks.openai_stream` compares ways of reading the model's stream; this is the whole road, from the model server's
socket through the log to a subscriber's.
"""

from __future__ import annotations

import argparse
import asyncio

from benchmarks._load import Holdfast, frame_of, new_session
from benchmarks._pace import TEXT
from benchmarks._processes import child, load_core, run
from benchmarks._readers import Reader, close_all
from benchmarks._table import Row, show

_PER_SECOND = 50


async def openai_runs(runs: int, seconds: float) -> None:
    """Prints the table."""
    chunks = round((seconds + 6) * _PER_SECOND)
    arguments = ("--pace", str(1 / _PER_SECOND), "--chunks", str(chunks), "--text", TEXT)
    async with child("benchmarks._upstream", *arguments, core=load_core()) as upstream:
        url = f"http://127.0.0.1:{upstream.port}/v1"
        async with child("benchmarks._server", "--model-url", url) as server:
            target = Holdfast("holdfast", server)
            sessions = [new_session() for _ in range(runs)]
            readers: list[Reader] = []
            for session in sessions:
                reader = await target.joined(session, "json")
                send = {"type": "send", "id": f"r-{session}", "text": "go", "agent": "openai"}
                await reader.ask(frame_of(send, "json"), b"started")
                readers.append(reader)
            await asyncio.sleep(2)
            loop = asyncio.get_running_loop()
            began, cpu, count = loop.time(), server.cpu_seconds, sum(reader.chunks for reader in readers)
            await asyncio.sleep(seconds)
            took, cpu = loop.time() - began, server.cpu_seconds - cpu
            count = sum(reader.chunks for reader in readers) - count
            close_all(readers)
    show(
        f"openai_runs: {runs} runs x {_PER_SECOND} tokens/s from a model server, on one core",
        [
            Row("share of the core", cpu / took * 100, "%", 100),
            Row("tokens/s delivered", count / took, "", note=f"of {runs * _PER_SECOND:,}"),
            Row("tokens that were late", max(0.0, 100 - count / took / runs / _PER_SECOND * 100), "%", 2),
            Row("CPU per token", cpu / count * 1e6, "µs"),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    run(openai_runs(given.runs, given.seconds))
