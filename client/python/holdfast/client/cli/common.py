"""What the commands have in common: options, exit codes, and how errors are told."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Any, Final, Self

import click

from holdfast.client.errors import ConnectionClosedError, ConnectionFailedError, UnauthorizedError
from holdfast.client.opening import ID_RULE, Opening, connect
from holdfast.client.phases import Status
from holdfast.client.session import Session
from holdfast.protocol import CommandError, HoldfastError
from holdfast.protocol.ends import end_of
from holdfast.protocol.events import EndReason
from holdfast.protocol.values import is_id

DEFAULT_URL: Final = "ws://127.0.0.1:8787"
DEFAULT_SESSION: Final = "default"
OPEN_SECONDS: Final = 3.0
"""How long a command tries to reach its server before it says that nobody is there."""


class Exit(IntEnum):
    """Exit codes; `holdfast --help` tells them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_CONNECTION = 3
    REFUSED = 4
    STOPPED = 130


def exit_of(reason: EndReason) -> Exit:
    """The exit code for the end of a run; FAILED for a reason of a newer server, which this program does not know."""
    return Exit(end_of(reason).exit_code)


class NoConnectionError(click.ClickException):
    """The server cannot be reached, or does not accept this client."""

    exit_code = Exit.NO_CONNECTION


class RefusedError(click.ClickException):
    """The server refused the command."""

    exit_code = Exit.REFUSED


def program() -> str:
    """What a person types to run this program: `HOLDFAST_PROGRAM` where something else starts it."""
    return os.environ.get("HOLDFAST_PROGRAM") or "holdfast"


class IdType(click.ParamType[str]):
    """An id of the protocol, refused here with a sentence that says what one looks like."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id itself."""
        if not is_id(value):
            self.fail(f"{value!r} is no id: {ID_RULE}.", param, ctx)
        return str(value)


ID: Final = IdType()


@dataclass(frozen=True, slots=True)
class Target:
    """Which session of which server, and as whom."""

    url: str
    session: str
    token: str | None
    device: str | None
    json: bool

    def hint(self, *words: str) -> str:
        """A command line that a person can copy: the program, the words, and where this session is."""
        found = [program(), *words]
        if self.url != DEFAULT_URL:
            found += ["--url", self.url]
        if self.session != DEFAULT_SESSION:
            found += ["--session", self.session]
        return shlex.join(found)

    def open(self, *, messages: int = 50) -> Opening:
        """Opens the session."""
        try:
            return connect(
                self.url,
                session=self.session,
                token=self.token,
                device=self.device,
                messages=messages,
                open_timeout=OPEN_SECONDS,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None


_OPTIONS: Final = (
    click.option(
        "--url", envvar="HOLDFAST_URL", default=DEFAULT_URL, show_default=True, show_envvar=True, help="The server."
    ),
    click.option(
        "--session",
        type=ID,
        envvar="HOLDFAST_SESSION",
        default=DEFAULT_SESSION,
        show_default=True,
        show_envvar=True,
        help="The session.",
    ),
    click.option("--token", envvar="HOLDFAST_TOKEN", show_envvar=True, help="The token that says who you are."),
    click.option(
        "--device", type=ID, envvar="HOLDFAST_DEVICE", show_envvar=True, help="What the other devices see you as."
    ),
)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object per line, for scripts.")


def session_command(command: Callable[..., Coroutine[Any, Any, Exit]]) -> Callable[..., None]:
    """Turns a coroutine function of a `Target` into a click callback with the options every command has."""
    return _JSON(person_command(command))


def person_command(command: Callable[..., Coroutine[Any, Any, Exit]]) -> Callable[..., None]:
    """The same for a command that talks to a person only, and has no `--json`."""

    def callback(
        url: str, session: str, token: str | None, device: str | None, as_json: bool = False, **arguments: Any
    ) -> None:
        target = Target(url, session, token, device, as_json)
        with told():
            code = asyncio.run(_interruptible(command(target, **arguments)))
            if code is None:
                raise KeyboardInterrupt
        click.get_current_context().exit(code)

    callback.__name__ = command.__name__
    callback.__doc__ = command.__doc__
    decorated: Callable[..., None] = callback
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


async def _interruptible(command: Coroutine[Any, Any, Exit]) -> Exit | None:
    """What the command returns; None where Ctrl-C has cancelled it.

    The loop's own handler of signals wakes the loop; Python's alone is called when the next thing happens, if the
    signal came just before the loop began to sleep.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        return await command
    except asyncio.CancelledError:
        if interrupted:
            return None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def told() -> Generator[None]:
    """Tells the errors of the client as a sentence and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        say("Left; runs go on, and no command is taken back.")  # what was asked for, and no error
        click.get_current_context().exit(Exit.STOPPED)
    except ConnectionFailedError as error:
        hint = "" if error.status else f" Is the server running? `{program()} serve` starts one."
        raise NoConnectionError(f"{error}{hint}") from None
    except (ConnectionClosedError, UnauthorizedError) as error:
        raise NoConnectionError(str(error)) from None
    except HoldfastError as error:
        raise RefusedError(refusal_text(error)) from None


def refusal_text(error: HoldfastError) -> str:
    """An error as a sentence, with the field at fault and the code that scripts know."""
    place = f"{error.path.removeprefix('$.')}: " if isinstance(error, CommandError) and error.path else ""
    return f"{place}{error} ({error.code})"


class Interrupts:
    """Ctrl-C as something to wait for, while this context manager is entered."""

    def __init__(self) -> None:
        self._pressed = [asyncio.Event(), asyncio.Event()]

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self.press)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def press(self) -> None:
        """Ctrl-C was pressed."""
        next((event for event in self._pressed if not event.is_set()), self._pressed[-1]).set()

    async def first(self) -> None:
        """Returns when it was pressed."""
        await self._pressed[0].wait()

    async def second(self) -> None:
        """Returns when it was pressed twice."""
        await self._pressed[1].wait()


@asynccontextmanager
async def connection_told(session: Session, tell: Callable[[str], None]) -> AsyncGenerator[None]:
    """Tells a person that the connection is lost, and that it is back, while the block lasts."""

    async def watch() -> None:
        lost = False
        while True:
            if session.status is Status.OFFLINE and not lost:
                tell("[connection lost; trying again]")
                lost = True
            elif session.status is Status.LIVE and lost:
                tell("[back]")
                lost = False
            await session.changed()

    watching = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)  # what ended the client is told by the command itself


def say(text: str) -> None:
    """A line for the person, beside the output: on standard error."""
    click.echo(text, err=True)


def line(value: object) -> None:
    """A JSON object on a line of its own."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
