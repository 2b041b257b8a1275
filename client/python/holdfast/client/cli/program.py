"""The program itself: it knows no subcommand, it finds them.

Subcommands are the entry points of the group `holdfast.commands`. So the client's and the server's commands meet in
one program and neither side imports the other.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import click

GROUP: Final = "holdfast.commands"


class MissingPackagesError(click.ClickException):
    """A subcommand that needs packages which are not installed."""

    exit_code = 2


class Program(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All registered names."""
        return sorted({*super().list_commands(ctx), *(found.name for found in entry_points(group=GROUP))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; one that says what to install, where its packages are missing."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for found in entry_points(group=GROUP, name=cmd_name):
            try:
                command = found.load()
            except ModuleNotFoundError as error:
                return _missing(found, error)
            assert isinstance(command, click.Command), f"{found.value} is no command"
            return command
        return None


def _missing(found: EntryPoint, error: ModuleNotFoundError) -> click.Command:
    def refuse(**_: Any) -> None:
        raise MissingPackagesError(f"`holdfast {found.name}` needs {error.name}: run `pip install 'holdfast[server]'`.")

    return click.Command(
        found.name,
        callback=refuse,
        help="Not installed: run `pip install 'holdfast[server]'`.",
        params=[click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
    )


_EXIT_CODES: Final = """\b
Exit codes:
  0    done
  1    the run failed, expired, was lost, or ended for a reason that is not known here
  2    wrong usage
  3    no connection, or the token was not accepted
  4    the server refused
  130  stopped: the run was cancelled, or Ctrl-C
"""


@click.group(cls=Program, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="holdfast", prog_name="holdfast")
def main() -> None:
    """Talk to AI runs that outlive every connection, and stop them for certain."""
