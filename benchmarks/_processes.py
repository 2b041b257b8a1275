"""The processes of a benchmark: the server on one core, everything else on another, and what the server has used.

The measuring process and the model server share the second core; the server has the first one to itself, as far as
the machine allows. What is measured is the CPU time of the server's process, threads and kernel included, so that
other programs on the machine disturb it little; ratios to a floor that is measured in turn take out most of the rest.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shlex
import signal
import sys
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

ROOT: Final = Path(__file__).resolve().parent.parent
_READY: Final = b"ready "


def server_core() -> int:
    """The first core that this process may use."""
    return min(_CORES)


def load_core() -> int:
    """The last one."""
    return max(_CORES)


_CORES: Final = frozenset(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Child:
    """A process that was started here and listens on a port of the loopback interface."""

    process: asyncio.subprocess.Process
    port: int

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all its threads, in the program and in the kernel."""
        # The number that clock_getcpuclockid(3) computes for a process on Linux: its scheduler's own count, in ns.
        return time.clock_gettime(~self.process.pid << 3 | 2)

    @property
    def private_bytes(self) -> int:
        """Memory that belongs to it alone."""
        with open(f"/proc/{self.process.pid}/smaps_rollup") as rollup:
            return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))

    async def line(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n")


def child(module: str, *arguments: str, core: int | None = None) -> AbstractAsyncContextManager[Child]:
    """Runs `python -m module`, see `program`."""
    return program(sys.executable, "-m", module, *arguments, core=core)


@asynccontextmanager
async def program(*command: str | Path, core: int | None = None) -> AsyncGenerator[Child]:
    """Runs a program on `core` (default: the server's) while the block lasts.

    Its first line of output that begins with `ready` gives its port; its errors go to this process's.
    """
    chosen = server_core() if core is None else core
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {chosen}),
    )
    try:
        assert process.stdout is not None
        while not (line := await process.stdout.readline()).startswith(_READY):
            if not line:
                raise RuntimeError(f"{shlex.join(map(str, command))} ended before it was ready")
        yield Child(process, int(line.removeprefix(_READY)))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def ready(port: int) -> None:
    """Says, in a child, that it listens."""
    print(f"ready {port}", flush=True)


def raise_file_limit() -> None:
    """Allows this process and its children as many connections as the machine does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def until_terminated(main: Coroutine[Any, Any, None]) -> None:
    """Runs a benchmark; SIGTERM ends it in order: what it has started ends too, and its directories are gone."""
    running = asyncio.ensure_future(main)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a benchmark on the load's core, without pauses of the garbage collector in what it measures."""
    os.sched_setaffinity(0, {load_core()})
    raise_file_limit()
    gc.freeze()
    gc.disable()
    uvloop.run(until_terminated(main))
