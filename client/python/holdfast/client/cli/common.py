"""What the commands have in common: options, exit codes, and how errors are told."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Any, Final, Self

import click

from holdfast.client.errors import ConnectionClosedError, ConnectionFailedError, UnauthorizedError
from holdfast.client.opening import Opening, connect
from holdfast.protocol import HoldfastError
from holdfast.protocol.events import EndReason

DEFAULT_URL: Final = "ws://127.0.0.1:8787"
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


EXIT_OF_REASON: Final[dict[EndReason, Exit]] = {
    "completed": Exit.DONE,
    "cancelled": Exit.STOPPED,
    "failed": Exit.FAILED,
    "expired": Exit.FAILED,
    "lost": Exit.FAILED,
}


class NoConnection(click.ClickException):
    """The server cannot be reached, or does not accept this client."""

    exit_code = Exit.NO_CONNECTION


class Refused(click.ClickException):
    """The server refused the command."""

    exit_code = Exit.REFUSED


class Left(click.ClickException):
    """Ctrl-C, where it stops the program and nothing else."""

    exit_code = Exit.STOPPED


@dataclass(frozen=True, slots=True)
class Target:
    """Which session of which server, and as whom."""

    url: str
    session: str
    token: str | None
    device: str | None
    json: bool

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
    click.option("--url", envvar="HOLDFAST_URL", default=DEFAULT_URL, show_default=True, help="The server."),
    click.option("--session", envvar="HOLDFAST_SESSION", default="default", show_default=True, help="The session."),
    click.option("--token", envvar="HOLDFAST_TOKEN", help="The token that says who you are."),
    click.option("--device", envvar="HOLDFAST_DEVICE", help="What the other devices see you as."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object per line, for scripts."),
)


def session_command(command: Callable[..., Coroutine[Any, Any, Exit]]) -> Callable[..., None]:
    """Turns a coroutine function of a `Target` into a click callback with the options every command has."""

    def callback(
        url: str, session: str, token: str | None, device: str | None, as_json: bool, **arguments: Any
    ) -> None:
        target = Target(url, session, token, device, as_json)
        with told():
            code = asyncio.run(command(target, **arguments))
        click.get_current_context().exit(code)

    callback.__name__ = command.__name__
    callback.__doc__ = command.__doc__
    decorated: Callable[..., None] = callback
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


@contextmanager
def told() -> Generator[None]:
    """Tells the errors of the client as a sentence and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        raise Left("Left; runs go on.") from None
    except ConnectionFailedError as error:
        hint = "" if error.status else " Is the server running? `holdfast serve` starts one."
        raise NoConnection(f"{error}{hint}") from None
    except (ConnectionClosedError, UnauthorizedError) as error:
        raise NoConnection(str(error)) from None
    except HoldfastError as error:
        raise Refused(f"{error} ({error.code})") from None


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


def say(text: str) -> None:
    """A line for the person, beside the output: on standard error."""
    click.echo(text, err=True)


def line(value: object) -> None:
    """A JSON object on a line of its own."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
