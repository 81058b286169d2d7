"""The commands about stored Hub tokens: the group `secrets`."""

from typing import Annotated

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.help import show_help
from warmrack_daemon.cli.output import print_json, print_line, print_table
from warmrack_daemon.cli.session import open_client

secrets = typer.Typer(
    help="Stored Hub tokens, which a request names.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
secrets.callback()(show_help)
Name = Annotated[str, typer.Argument(help="The secret's name.")]


@secrets.command("ls")
def secrets_ls(json: options.Json = False) -> None:
    """List the names of the stored tokens."""
    with open_client() as client:
        found = client.secrets()
    if json:
        print_json({"items": [{"name": name} for name in found], "next": None})
        return
    print_table(("name",), [(name,) for name in found])


@secrets.command("set")
def secrets_set(name: Name, json: options.Json = False) -> None:
    """Store the Hub token that comes on stdin, so that no process list shows it."""
    from warmrack_daemon.cli.stdin import read_stdin

    token = read_stdin().strip()
    with open_client() as client:
        client.put_secret(name, token)
    _tell({"name": name}, f"stored {name}", as_json=json)


@secrets.command("rm")
def secrets_rm(name: Name, json: options.Json = False) -> None:
    """Forget a stored token."""
    with open_client() as client:
        client.delete_secret(name)
    _tell({"name": name}, f"forgot {name}", as_json=json)


@secrets.command("rotate")
def secrets_rotate(json: options.Json = False) -> None:
    """Encrypt every stored token with the newest key, after which older keys can go."""
    with open_client() as client:
        renewed = client.rotate_secrets()
    _tell({"renewed": renewed}, f"{renewed} tokens are encrypted anew", as_json=json)


def _tell(answer: dict[str, object], line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print_line(line)
