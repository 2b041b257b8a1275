"""The command line: one program, `holdfast`, whose subcommands both sides register as entry points."""

from holdfast.client.cli.program import main

__all__ = ["main"]
