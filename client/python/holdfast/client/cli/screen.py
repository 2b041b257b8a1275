"""Where a chat is written to and its lines come from: a terminal with a prompt, or plain pipes."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout


class Screen(Protocol):
    """What a chat needs of its surroundings."""

    question: str | None
    """What the next line answers; None where it is a message."""

    def write(self, text: str) -> None:
        """Streams text of a run."""
        ...

    def end(self) -> None:
        """Ends the line of the run's text, where one is open."""
        ...

    def note(self, text: str) -> None:
        """A line of its own about what goes on."""
        ...

    def lines(self, interrupted: Callable[[], bool]) -> AsyncIterator[str]:
        """The lines given, until the end of the input, or until `interrupted` (Ctrl-C) says to leave."""
        ...


class Pipes:
    """Lines from standard input, text to standard output, notes to standard error."""

    def __init__(self) -> None:
        self.question: str | None = None
        self._column = 0

    def write(self, text: str) -> None:
        """Streams text of a run."""
        click.echo(text, nl=False)
        self._column = 0 if text.endswith("\n") else 1

    def end(self) -> None:
        """Ends the line of the run's text, where one is open."""
        if self._column:
            self.write("\n")

    def note(self, text: str) -> None:
        """Ends the line of the run's text and tells the note on standard error."""
        self.end()
        click.echo(text, err=True)

    async def lines(self, interrupted: Callable[[], bool]) -> AsyncIterator[str]:
        """One line after the other; the next is read when the one before was dealt with."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str] = asyncio.Queue()
        wanted = threading.Semaphore(0)

        def read() -> None:  # a thread, because no event loop can wait for every kind of standard input
            while True:
                wanted.acquire()
                text = sys.stdin.readline()
                loop.call_soon_threadsafe(queue.put_nowait, text)
                if not text:
                    return

        threading.Thread(target=read, name="standard input", daemon=True).start()
        while True:
            wanted.release()
            text = await queue.get()
            if not text:
                return
            yield text.rstrip("\n")


class Terminal:
    """A prompt at the bottom, and everything else above it.

    Whole lines go above the prompt. The line that is still being written is part of the prompt, because a prompt
    can only be redrawn below complete lines.
    """

    def __init__(self) -> None:
        self.question: str | None = None
        self._partial = ""
        self._interrupted: Callable[[], bool] = lambda: True
        keys = KeyBindings()
        keys.add("c-c")(self._on_interrupt)
        keys.add("<sigint>")(self._on_interrupt)
        self._prompt: PromptSession[str] = PromptSession(message=self._message, key_bindings=keys, erase_when_done=True)

    def write(self, text: str) -> None:
        """Streams text of a run."""
        whole, newline, rest = (self._partial + text).rpartition("\n")
        if newline:
            print(whole, flush=True)  # noqa: T201 - through patch_stdout, above the prompt
        self._partial = rest
        self._prompt.app.invalidate()

    def end(self) -> None:
        """Ends the line of the run's text, where one is open."""
        if self._partial:
            self.write("\n")

    def note(self, text: str) -> None:
        """A line of its own above the prompt."""
        self.write(f"\n{text}\n" if self._partial else f"{text}\n")

    async def lines(self, interrupted: Callable[[], bool]) -> AsyncIterator[str]:
        """What is typed, until Ctrl-D."""
        self._interrupted = interrupted
        with patch_stdout():
            while True:
                try:
                    text = await self._prompt.prompt_async()
                except EOFError:
                    return
                if text.strip():
                    self.note(f"> {text}")
                yield text

    def _message(self) -> ANSI:
        partial = f"{self._partial}\n" if self._partial else ""
        return ANSI(f"{partial}\x1b[1m{self.question or ''}>\x1b[0m ")

    def _on_interrupt(self, event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        elif self._interrupted():
            event.app.exit(exception=EOFError())
