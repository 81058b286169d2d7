"""What is printed where no command is named: the help, or the version."""

from importlib.metadata import version as find_version
from typing import Annotated

import typer

from warmrack_daemon.cli.output import print_line, write
from warmrack_store.errors import BadRequest

Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.")]


def show_help(context: typer.Context) -> None:
    """For a group of commands."""
    if context.invoked_subcommand is None:
        write(context.get_help() + "\n")
        raise typer.Exit(BadRequest.exit_code)


def show_help_or_version(context: typer.Context, version: Version = False) -> None:
    """For the program itself."""
    if version:
        print_line(f"warmrack {find_version('warmrack')}")
        raise typer.Exit(0)
    show_help(context)
