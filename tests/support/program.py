"""`holdfast` as a person starts it: processes, what they print, and how they end. Every wait is for something said."""

from __future__ import annotations

import asyncio
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

ROOT: Final = Path(__file__).parents[2]
HOLDFAST: Final = str(Path(sys.executable).with_name("holdfast"))
"""The program, as the installation put it beside Python."""
SECONDS: Final = 30.0
"""How long anything may take here: long enough for a busy machine, and only ever waited for by a failing test."""
_URL: Final = re.compile(r"Holdfast listens at (ws://\S+),")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings that were made for somebody else's server."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HOLDFAST_", "OPENAI_", "_HOLDFAST", "COVERAGE_"))
    }
    return {**clean, **(more or {})}


class Lines:
    """What a process says on a pipe, read by a thread so that it never waits for its reader."""

    def __init__(self, pipe: IO[str]) -> None:
        self.said: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._pipe = pipe
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def until(self, text: str) -> str:
        """The next line that holds `text`. Raises AssertionError where the pipe ends, or falls silent, before it."""
        while True:
            try:
                line = self._queue.get(timeout=SECONDS)
            except queue.Empty:
                line = None
            assert line is not None, f"{text!r} was never said, only: {''.join(self.said)}"
            if text in line:
                return line

    def close(self) -> str:
        """Everything that was said, after the process has ended."""
        self._thread.join()
        self._pipe.close()
        return "".join(self.said)

    def _read(self) -> None:
        for line in self._pipe:
            self.said.append(line)
            self._queue.put(line)
        self._queue.put(None)


class Serve:
    """`holdfast serve`, from its start to its end; killed at the end of the block if it is still there.

    With `port` None any free port is taken. The store is a file in `cwd` unless `arguments` name another.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [HOLDFAST, "serve", "--port", str(port or 0), *arguments],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.out = Lines(self._process.stdout)
        self.log = Lines(self._process.stderr)
        self.url = ""
        self.port = port or 0

    def __enter__(self) -> Self:
        """Returns when it listens."""
        try:
            match = _URL.search(self.out.until("Holdfast listens at"))
            assert match is not None
            self.out.until("Stop with Ctrl-C")
        except BaseException:
            self.__exit__()
            raise AssertionError(f"it did not start: {''.join(self.log.said)}") from None
        self.url = match[1]
        self.port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL: it ends where it stands."""
        self._process.kill()
        self.ended()

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """The exit code, when it has ended by itself."""
        code = self._process.wait(SECONDS)
        self.out.close()
        self.log.close()
        return code


@dataclass(frozen=True)
class Ended:
    """A program that has ended: how, and what it said."""

    code: int | None
    out: str
    err: str


def command(*arguments: str, server: Serve | None = None, session: str | None = None) -> list[str]:
    """A command line of `holdfast` at this server and session."""
    target = [] if server is None else ["--url", server.url]
    return [HOLDFAST, *arguments, *target, *([] if session is None else ["--session", session])]


async def holdfast(
    *arguments: str,
    server: Serve | None = None,
    session: str | None = None,
    given: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Ended:
    """Runs a command to its end, with `given` as its standard input."""
    words = command(*arguments, server=server, session=session)
    async with started(words, env=env, cwd=cwd) as process:
        return await outcome(process, given)


@asynccontextmanager
async def started(
    words: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> AsyncGenerator[Process]:
    """A program that runs beside the test; killed at the end of the block if it is still there."""
    process = await asyncio.create_subprocess_exec(
        *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment(env), cwd=cwd
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def outcome(process: Process, given: str | None = None) -> Ended:
    """How a program ended by itself, with what it said since it was last listened to."""
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate(None if given is None else given.encode())
    return Ended(process.returncode, out.decode(), err.decode())


async def heard(process: Process, text: str) -> str:
    """What the program writes to standard output up to `text` and perhaps beyond it."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(SECONDS):
        while text not in said:
            piece = await process.stdout.read(65_536)
            assert piece, f"{text!r} was never said, only: {said}"
            said += piece.decode()
    return said


async def run_id_of(process: Process) -> str:
    """The id that `holdfast send` names on standard error, first of all."""
    assert process.stderr is not None
    async with asyncio.timeout(SECONDS):
        line = (await process.stderr.readline()).decode()
    assert line.startswith("run "), line
    return line.split()[1]
