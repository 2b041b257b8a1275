"""What the SQLite store adds to the memory store: time on its way and CPU, per chunk.

python -m benchmarks.sqlite --runs 40 --per-second 50
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks._load import Holdfast, Load, median_cpu, rounds
from benchmarks._processes import child, run
from benchmarks._table import Row, show
from benchmarks.latency import median_delay


async def sqlite(runs: int, per_second: int, count: int) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        store = f"sqlite:///{Path(directory) / 'bench.db'}"
        async with (
            child("benchmarks._server", "--store", "memory:") as plain,
            child("benchmarks._server", "--store", store) as durable,
        ):
            targets = [Holdfast("memory", plain), Holdfast("sqlite", durable)]
            taken = await rounds(targets, Load(runs, per_second, timed=True), count)
    memory, durable_samples = taken["memory"], taken["sqlite"]
    show(
        f"sqlite: against the memory store, {runs} runs x {per_second}/s",
        [
            Row("CPU per chunk", median_cpu(durable_samples), "µs", 1.8, median_cpu(memory)),
            Row("p50, memory", median_delay(memory, 0.5), "ms"),
            Row("p50, added", median_delay(durable_samples, 0.5) - median_delay(memory, 0.5), "ms", 1.0),
            Row("p99, memory", median_delay(memory, 0.99), "ms"),
            Row("p99, sqlite", median_delay(durable_samples, 0.99), "ms"),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--per-second", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    run(sqlite(given.runs, given.per_second, given.rounds))
