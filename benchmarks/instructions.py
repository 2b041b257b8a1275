"""Instructions that a chunk takes in the program, kernel left out: a number that a busy machine does not change.

    python -m benchmarks.instructions
    python -m benchmarks.instructions --case "memory, alone"

The whole server runs in one process, over transports without a kernel (`_lockstep.py`), once with few chunks and once
with many; the difference is what chunks take, and all that a start takes cancels out. They are counted by the
processor where it has counters that `perf` may read, and else by `valgrind`, which runs the program on a processor of
its own making, twenty times slower. It knows nothing of caches and waits: hold a change to the CPU time too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks._processes import ROOT, until_terminated
from benchmarks._table import Row, show

_FEW: Final = 500
_PERF: Final = ("perf", "stat", "-x,", "-e", "instructions:u")
_VALGRIND: Final = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


@dataclass(frozen=True, slots=True)
class Counter:
    """How instructions are counted: what is put before a command, and where its errors say how many there were."""

    name: str
    command: Sequence[str]
    pattern: re.Pattern[str]

    async def count(self, *command: str) -> int:
        """Of one run of a program."""
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        process = await asyncio.create_subprocess_exec(
            *self.command, *command, cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        found = self.pattern.search(errors.decode())
        if process.returncode or found is None:
            raise RuntimeError(f"{' '.join(command)} failed:\n{errors.decode()}")
        return int(found[1].replace(",", ""))


def counter() -> Counter:
    """What this machine has. Exits where it has nothing."""
    if shutil.which("perf"):
        tried = subprocess.run([*_PERF, "true"], capture_output=True, text=True).stderr
        if re.search(r"^\d+,", tried, re.MULTILINE):
            return Counter("perf", _PERF, re.compile(r"^(\d+),.*instructions", re.MULTILINE))
    if shutil.which("valgrind"):
        return Counter("valgrind", _VALGRIND, re.compile(r"I +refs: +([\d,]+)"))
    sys.exit(
        "This machine lets nobody read its counters, and has no valgrind. On Debian and Ubuntu: "
        "sudo apt install valgrind. Counters, where there are any: sudo sysctl kernel.perf_event_paranoid=2"
    )


@dataclass(frozen=True, slots=True)
class Case:
    """One way of `_lockstep`."""

    name: str
    server: str = "holdfast"
    store: str = "memory"
    together: int = 1
    readers: int = 1

    async def once(self, counting: Counter, chunks: int) -> int:
        """Instructions of a whole run."""
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
            store = "memory:" if self.store == "memory" else f"sqlite:///{directory}/bench.db"
            arguments = ("--server", self.server, "--store", store, "--chunks", str(chunks))
            shape = ("--together", str(self.together), "--readers", str(self.readers))
            return await counting.count(sys.executable, "-m", "benchmarks._lockstep", *arguments, *shape)


_CASES: Final = (
    Case("bare, alone", server="bare"),
    Case("bare, ten together", server="bare", together=10),
    Case("memory, alone"),
    Case("memory, ten together", together=10),
    Case("memory, ten together, 5 readers", together=10, readers=5),
    Case("sqlite, alone", store="sqlite"),
)


async def instructions(cases: Sequence[Case], many: int, repeats: int) -> None:
    """Prints the table."""
    counting = counter()
    free = asyncio.Semaphore(len(os.sched_getaffinity(0)))  # nothing is timed here

    async def once(case: Case, chunks: int) -> int:
        async with free:
            return await case.once(counting, chunks)

    async def per_chunk(case: Case) -> list[float]:
        counts = await asyncio.gather(*(once(case, chunks) for _ in range(repeats) for chunks in (_FEW, many)))
        return [(more - less) / (many - _FEW) / 1000 for less, more in zip(counts[::2], counts[1::2], strict=True)]

    measured = await asyncio.gather(*(per_chunk(case) for case in cases))
    found = {case.name: values for case, values in zip(cases, measured, strict=True)}
    rows = [_row(name, values) for name, values in found.items()]
    one, five = found.get("memory, ten together"), found.get("memory, ten together, 5 readers")
    if one and five:
        rows.append(Row("each further reader", (statistics.median(five) - statistics.median(one)) / 4, "k"))
    show(f"instructions: thousands per chunk, by {counting.name}, {_FEW:,} and {many:,} chunks", rows)


def _row(name: str, values: Sequence[float]) -> Row:
    note = f"{min(values):.2f}-{max(values):.2f}" if len(values) > 1 else ""
    return Row(name, statistics.median(values), "k", note=note)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=[case.name for case in _CASES])
    parser.add_argument("--chunks", type=int, default=3_000)
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    chosen = [case for case in _CASES if given.case is None or case.name in given.case]
    asyncio.run(until_terminated(instructions(chosen, given.chunks, given.repeats)))
