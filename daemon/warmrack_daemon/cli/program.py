"""The program `warmrack`: its commands put together, and how it ends."""

import traceback
from collections.abc import Sequence

import typer

from warmrack_daemon.cli import (
    INTERRUPTED,
    cache,
    cache_contents,
    catalog,
    explanations,
    jobs,
    loads,
    locks,
    pool,
    processes,
    receipts,
    secrets,
    tasks,
)
from warmrack_daemon.cli.doctor import command as doctor
from warmrack_daemon.cli.failures import exit_code, report, wants_json
from warmrack_daemon.cli.help import show_help_or_version
from warmrack_store.errors import BadRequest, Defect, WarmrackError

_GROUPS = (
    processes.COMMANDS,
    loads.COMMANDS,
    explanations.COMMANDS,
    tasks.COMMANDS,
    jobs.COMMANDS,
    receipts.COMMANDS,
    locks.COMMANDS,
    pool.COMMANDS,
)


def make_program() -> typer.Typer:
    """The Typer program; help is plain text, since Rich alone would double its time."""
    program = typer.Typer(
        name="warmrack",
        help="Load models into a shared cache, keep them warm, and prove what is served.",
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback()(show_help_or_version)
    for group in (*_GROUPS, (doctor.doctor,)):
        for command in group:
            program.command()(command)
    cache_contents.add_commands(cache.cache)
    program.add_typer(cache.cache, name="cache")
    program.add_typer(catalog.catalog, name="catalog")
    program.add_typer(secrets.secrets, name="secrets")
    return program


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; the exit code as documented."""
    as_json = wants_json(arguments)
    try:
        code = make_program()(list(arguments), prog_name="warmrack", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except WarmrackError as error:
        report(error, as_json=as_json)
        return exit_code(error)
    except typer.TyperException as error:
        usage = BadRequest(error.format_message(), hint="`warmrack COMMAND --help` says more.")
        report(usage, as_json=as_json)
        return exit_code(usage)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        report(Defect(f"{type(error).__name__}: {error}"), as_json=as_json)
        return Defect.exit_code
