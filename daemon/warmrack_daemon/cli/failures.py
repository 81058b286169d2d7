"""How an error leaves the command line: its text, its JSON and its exit code."""

from collections.abc import Sequence

from warmrack_daemon.cli.output import print_json, say
from warmrack_store.errors import WarmrackError


def wants_json(arguments: Sequence[str]) -> bool:
    """True where the command line asks for JSON, also one that cannot be parsed."""
    options = list(arguments)
    if "--" in options:
        options = options[: options.index("--")]
    return "--json" in options


def exit_code(error: WarmrackError) -> int:
    """The tree's code; a contradiction is found before anything is sent and so is wrong usage."""
    return error.exit_code


def report(error: WarmrackError, *, as_json: bool) -> None:
    """The error as data on stdout, or as talk on stderr."""
    if as_json:
        print_json({"error": error.to_record()})
        return
    say(f"error[{error.code}]:", error.message, style="bold red")
    if error.hint:
        say("hint:", error.hint, style="bold")
