"""How long a chunk is on its way, from the agent's `yield` to the client's socket, at 2,000 chunks a second.

    python -m benchmarks.latency --runs 40 --per-second 50

The floor is a bare `websockets` server that sends the same bytes by `await ws.send` at the same pace.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from benchmarks._load import Floor, Holdfast, Load, Sample, rounds
from benchmarks._processes import child, run
from benchmarks._table import Row, show


def median_delay(samples: Sequence[Sample], quantile: float) -> float:
    """Over the rounds, in ms."""
    return statistics.median(sample.delay_ms(quantile) for sample in samples)


async def latency(runs: int, per_second: int, count: int) -> None:
    """Prints the table."""
    async with child("benchmarks._floor", "--by", "send") as send, child("benchmarks._server") as server:
        targets = [Floor("send", send), Holdfast("holdfast", server)]
        taken = await rounds(targets, Load(runs, per_second, timed=True), count)
    floor, ours = taken["send"], taken["holdfast"]
    show(
        f"latency: agent's yield to the client's socket, {runs} runs x {per_second}/s, memory store",
        [
            Row("p50, ws.send", median_delay(floor, 0.5), "ms"),
            Row("p50, Holdfast", median_delay(ours, 0.5), "ms"),
            Row("p50, over the floor", median_delay(ours, 0.5) - median_delay(floor, 0.5), "ms", 0.3),
            Row("p99, ws.send", median_delay(floor, 0.99), "ms"),
            Row("p99, Holdfast", median_delay(ours, 0.99), "ms", 2.0),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--per-second", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    run(latency(given.runs, given.per_second, given.rounds))
