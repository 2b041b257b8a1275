"""`holdfast chat` at a terminal: what is typed during a run steers it, and Ctrl-C stops the run and not the program."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import termios
from contextlib import suppress

from holdfast.client import connect
from tests.support.program import SECONDS, Serve, command, environment
from tests.support.python_client import until


class Keyboard:
    """The person's side of a terminal."""

    def __init__(self, descriptor: int) -> None:
        self.shown = ""
        self._descriptor = descriptor
        self._moved = asyncio.Event()

    def read(self) -> None:
        """Takes in what the terminal has to show; ends where the program has left it."""
        with suppress(OSError):
            self.shown += os.read(self._descriptor, 65_536).decode(errors="replace")
        self._moved.set()

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._descriptor, keys.encode())

    async def sees(self, text: str) -> None:
        """Returns when `text` is on the screen."""
        async with asyncio.timeout(SECONDS):
            while text not in self.shown:
                self._moved.clear()
                await self._moved.wait()


async def test_a_conversation_at_a_terminal(demo: Serve, session: str) -> None:
    """A line starts a run, another one steers it, Ctrl-C stops it and the chat goes on; /quit leaves, with 0."""
    person, terminal = pty.openpty()
    loop = asyncio.get_running_loop()
    keyboard = Keyboard(person)
    loop.add_reader(person, keyboard.read)
    try:
        process = await asyncio.create_subprocess_exec(
            *command("chat", server=demo, session=session),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment({"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}),
            start_new_session=True,
            # Its controlling terminal, which sends it a signal where it does not read the keys itself.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        try:
            async with connect(demo.url, session=session) as other:
                await keyboard.sees("/help tells")
                keyboard.type("count to 10000\r")
                await until(other, lambda: any(" 5 " in run.text for run in other.runs.values()))
                (run,) = other.runs.values()
                await keyboard.sees(f"holdfast cancel {run.id}")
                keyboard.type("count to 9999\r")
                await until(other, lambda: "You told me: “count to 9999”" in run.text)
                await keyboard.sees(f"[steers {run.id}]")
                keyboard.type("\x03")
                await until(other, lambda: run.reason == "cancelled")
                await keyboard.sees(f"{run.id} is stopped.")
                keyboard.type("count to 2\r")
                await until(other, lambda: [run.reason for run in other.runs.values()] == ["cancelled", "completed"])
                await keyboard.sees("Counting: 1 2.")
                keyboard.type("/quit\r")
                async with asyncio.timeout(SECONDS):
                    assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        loop.remove_reader(person)
        os.close(person)
        os.close(terminal)
