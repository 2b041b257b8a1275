"""What a chunk costs the server's core on its whole way: to its first subscriber, and to each further one.

    python -m benchmarks.fanout                 # five launches of each server, some minutes
    python -m benchmarks.fanout --launches 1    # a quick look

The floors are bare `websockets` servers that send the same bytes at the same pace to as many connections. Every launch
starts all servers anew, in random order; what is told is the median over the launches of the ratio within one, and the
least and the greatest.
"""

from __future__ import annotations

import argparse

from benchmarks._load import MEMORY, SEND, SQLITE, WRITE, Encoding, Load, Sample, cpu, launches
from benchmarks._processes import run
from benchmarks._table import Row, compared, show

_PER_SECOND = 50
_RUNS = (200, 40)
"""Ten runs share a turn of the event loop at the one, nearly every chunk has its own at the other."""
_RUNS_OF_MANY = 100
"""With several subscribers: more would fill a core."""


def further(taken: list[list[Sample]], subscribers: int) -> list[float]:
    """CPU µs per chunk of each subscriber behind the first, in each launch."""
    one, many = cpu(taken[2]), cpu(taken[3])
    return [(all_of_them - first) / (subscribers - 1) for first, all_of_them in zip(one, many, strict=True)]


async def fanout(subscribers: int, count: int, encoding: Encoding, seconds: float) -> None:
    """Prints the tables."""
    ways = [SEND, WRITE, MEMORY, SQLITE]
    loads = [Load(runs, _PER_SECOND, encoding=encoding, seconds=seconds) for runs in (*_RUNS, _RUNS_OF_MANY)]
    loads.append(Load(_RUNS_OF_MANY, _PER_SECOND, readers=subscribers, encoding=encoding, seconds=seconds))
    taken = await launches(ways, loads, count)
    for number, runs in enumerate(_RUNS):
        send, write, memory, sqlite = (cpu(taken[way.name][number]) for way in ways)
        show(
            f"fanout: CPU per chunk, one subscriber, {runs} runs x {_PER_SECOND}/s, {encoding}; launches: {count}",
            [
                compared("memory, to ws.send", memory, send, "µs", 1.3 if number == 0 else None),
                compared("memory, to bare write", memory, write, "µs"),
                compared("sqlite, to ws.send", sqlite, send, "µs", 1.9 if number == 0 else None),
                compared("sqlite, to bare write", sqlite, write, "µs"),
                _rate(taken["memory"][number] + taken["sqlite"][number], loads[number]),
            ],
        )
    send, write, memory, _ = (further(taken[way.name], subscribers) for way in ways)
    show(
        f"fanout: CPU per chunk of each further subscriber of {subscribers}, {_RUNS_OF_MANY} runs x {_PER_SECOND}/s",
        [
            compared("to ws.send", memory, send, "µs", 0.4),
            compared("to bare write", memory, write, "µs"),
            _rate(taken["memory"][3], loads[3]),
        ],
    )


def _rate(samples: list[Sample], load: Load) -> Row:
    """Where it is not the one asked for, the server had no time left, and the cost per chunk says nothing."""
    slowest = min(sample.chunks_per_second for sample in samples)
    return Row("chunks/s, slowest", slowest, "", note=f"of {load.runs * load.per_second:,}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=4)
    parser.add_argument("--launches", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measuring")
    parser.add_argument("--encoding", choices=["json", "msgpack"], default="json")
    given = parser.parse_args()
    run(fanout(given.subscribers, given.launches, given.encoding, given.seconds))
