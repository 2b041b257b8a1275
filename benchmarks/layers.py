"""Where the microseconds of a token go: each layer's own part of what a chunk costs.

    python -m benchmarks.layers                          # memory store, 100 runs x 50/s
    python -m benchmarks.layers --store sqlite --runs 40

Clocks are put around the functions named below, from outside; a layer's time is without that of the layers it calls,
and without what the clocks take. The whole is that of the same server without clocks, so that the rest is what nobody
named: the agent and its timer, the event loop, tasks and futures. Within some tenths of a µs, on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any, Final

from benchmarks._load import MEMORY, SEND, SQLITE, Holdfast, Launch, Load, measure
from benchmarks._processes import run
from benchmarks._table import Row, show

LAYERS: Final = (
    ("hand-over", "holdfast.server.session.worker.RunWorker.put_text"),
    ("turn", "holdfast.server.node.turns.Turns._turn"),
    ("turn", "holdfast.server.session.actor.Session.decide"),
    ("turn", "holdfast.server.session.actor.Session.landed"),
    ("decide, fold", "holdfast.server.session.core.Core.next"),
    ("decide, fold", "holdfast.server.session.core.Core.appended"),
    ("encode", "holdfast.protocol.codec.MsgpackCodec.encode"),
    ("encode", "holdfast.protocol.codec.JsonCodec.encode"),
    ("store", "holdfast.server.store.memory.MemoryStore.append_many"),
    ("store", "holdfast.server.store.sqlite.SqliteStore.append_many"),
    ("keep in memory", "holdfast.server.session.journal.Journal.keep"),
    ("fan-out", "holdfast.server.session.subscribers.Subscribers.fan_out"),
    ("socket write", "transport.write"),
    ("committed", "holdfast.server.session.worker.RunWorker.committed"),
)
"""Name and function of each layer, in the order of a token's way."""


async def clocked(way: Launch, load: Load) -> tuple[dict[str, tuple[float, float]], float, list[str]]:
    """A launch with clocks: by layer µs and calls per chunk, µs per chunk on other threads, and what is not there."""
    names = [word for layer, name in LAYERS for word in ("--clock", f"{layer}={name}")]
    async with Launch(way.name, [*way.command, *names], way.target).started() as target:
        assert isinstance(target, Holdfast)
        heard: list[tuple[dict[str, Any], int]] = []

        async def hear(come: Callable[[], int]) -> None:
            heard.append((await target.hear("layers"), come()))

        await measure(target, load, around=hear)
    (before, sooner), (after, later) = heard
    chunks = later - sooner
    layers = {
        name: ((ns - before["layers"][name][0]) / chunks / 1000, (calls - before["layers"][name][1]) / chunks)
        for name, (ns, calls) in after["layers"].items()
    }
    loop, process = (now - then for now, then in zip(after["cpu"], before["cpu"], strict=True))
    return layers, (process - loop) / chunks * 1e6, after["missing"]


async def layers(way: Launch, load: Load, count: int) -> None:
    """Prints the table."""
    floors: list[float] = []
    wholes: list[float] = []
    taken: list[dict[str, tuple[float, float]]] = []
    others: list[float] = []
    missing: list[str] = []
    for _ in range(count):
        for plain, kept in ((SEND, floors), (way, wholes)):
            async with plain.started() as target:
                kept.append((await measure(target, load)).cpu_us_per_chunk)
        found, other, missing = await clocked(way, load)
        taken.append(found)
        others.append(other)
    rows: list[Row] = []
    for name in dict.fromkeys(layer for layer, _ in LAYERS):
        of_it = [found[name] for found in taken if name in found]
        if of_it:
            calls = statistics.median(each[1] for each in of_it)
            rows.append(Row(name, statistics.median(each[0] for each in of_it), "µs", note=f"{calls:.2f} calls"))
    if way is not MEMORY:
        rows.append(Row("other threads", statistics.median(others), "µs"))
    whole = statistics.median(wholes)
    rows += [
        Row("the rest", whole - sum(row.value for row in rows), "µs", note="agent, timer, loop, tasks"),
        Row("the whole", whole, "µs", floor=statistics.median(floors), note="the floor is ws.send"),
        *(Row(name, 0, "", note="is not there") for name in missing),
    ]
    show(f"layers: CPU per chunk, {load.runs} runs x {load.per_second}/s, {way.name} store; launches: {count}", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=["memory", "sqlite"], default="memory")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--per-second", type=int, default=50)
    parser.add_argument("--launches", type=int, default=3)
    given = parser.parse_args()
    chosen = MEMORY if given.store == "memory" else SQLITE
    run(layers(chosen, Load(given.runs, given.per_second), given.launches))
