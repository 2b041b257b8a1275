"""What a chunk costs the server's core: to its first subscriber, and to each further one.

    python -m benchmarks.fanout --runs 200 --per-second 50 --subscribers 4

The floors are bare `websockets` servers that send the same bytes at the same pace to as many connections.
"""

from __future__ import annotations

import argparse

from benchmarks._load import Encoding, Load, Target, median_cpu, rounds
from benchmarks._processes import child, run
from benchmarks._table import Row, show


async def fanout(runs: int, per_second: int, subscribers: int, count: int, encoding: Encoding) -> None:
    """Prints the table."""
    async with (
        child("benchmarks._floor", "--by", "send") as send,
        child("benchmarks._floor", "--by", "write") as write,
        child("benchmarks._server") as server,
    ):
        targets = [Target("send", send, None), Target("holdfast", server), Target("write", write, None)]
        one = await rounds(targets, Load(runs, per_second, encoding=encoding), count)
        many = await rounds(targets, Load(runs, per_second, readers=subscribers, encoding=encoding), count)
    first = {name: median_cpu(samples) for name, samples in one.items()}
    further = {name: (median_cpu(samples) - first[name]) / (subscribers - 1) for name, samples in many.items()}
    rate = min(sample.chunks_per_second for sample in [*one["holdfast"], *many["holdfast"]])
    show(
        f"fanout: CPU per chunk, {runs} runs x {per_second}/s, memory store, {encoding}; slowest round {rate:,.0f}/s",
        [
            Row("1 subscriber, to ws.send", first["holdfast"], "µs", 1.5, first["send"]),
            Row("1 subscriber, to bare write", first["holdfast"], "µs", None, first["write"]),
            Row("each further, to ws.send", further["holdfast"], "µs", 0.6, further["send"]),
            Row("each further, to bare write", further["holdfast"], "µs", 1.3, further["write"]),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--per-second", type=int, default=50)
    parser.add_argument("--subscribers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoding", choices=["json", "msgpack"], default="json")
    given = parser.parse_args()
    run(fanout(given.runs, given.per_second, given.subscribers, given.rounds, given.encoding))
