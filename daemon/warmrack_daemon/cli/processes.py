"""The commands that start warmrack's processes or prepare for them: up, serve, worker, migrate."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_json, print_line

StateDir = Annotated[Path | None, typer.Option(help="Where the embedded stack keeps its state.")]
Host = Annotated[str, typer.Option(help="The address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")]
BehindProxy = Annotated[
    bool,
    typer.Option(
        "--behind-proxy", help="A proxy that authenticates guards the address: it may be any."
    ),
]
Devices = Annotated[
    str | None, typer.Option(help="auto, or a list such as cpu:0=4GiB,cuda:0; for each node.")
]
JsonErrors = Annotated[bool, typer.Option("--json", help="Print an error as JSON.")]
"""Looked for before the command line is parsed; the commands themselves have no use for it."""


def up(
    state_dir: StateDir = None,
    host: Host = "127.0.0.1",
    port: Port = 8420,
    nodes: Annotated[int, typer.Option(min=1, help="How many node agents to start.")] = 1,
    devices: Devices = None,
    behind_proxy: BehindProxy = False,
    json: JsonErrors = False,
) -> None:
    """Run everything on this machine: broker, database, control plane and nodes."""
    from warmrack_daemon.listening import Listening
    from warmrack_daemon.supervisor import run_up
    from warmrack_store.settings import load_settings

    del json
    settings = load_settings(flags={"state_dir": state_dir, "devices": devices})
    run_up(settings, Listening(host=host, port=port, behind_proxy=behind_proxy), nodes)


def serve(
    state_dir: StateDir = None,
    host: Host = "127.0.0.1",
    port: Port = 8420,
    behind_proxy: BehindProxy = False,
    json: JsonErrors = False,
) -> None:
    """Run one control plane: the HTTP API and the reconciler."""
    from warmrack_daemon.listening import Listening, check_access
    from warmrack_store.settings import load_settings

    del json
    listening = Listening(host=host, port=port, behind_proxy=behind_proxy)
    check_access(load_settings(flags={"state_dir": state_dir}).auth, listening)
    # A fresh interpreter: the command line's own libraries would stay in memory for good.
    command = [sys.executable, "-m", "warmrack_daemon.serve", *listening.options()]
    _become(command, {"state_dir": state_dir})


def worker(
    state_dir: StateDir = None,
    node: Annotated[str | None, typer.Option(help="This node's name.")] = None,
    devices: Devices = None,
    json: JsonErrors = False,
) -> None:
    """Run this machine's node agent."""
    from warmrack_store.settings import load_settings

    del json
    flags = {"state_dir": state_dir, "node": node, "devices": devices}
    load_settings(flags=flags)
    _become([sys.executable, "-m", "warmrack_workers"], flags)


def _become(command: list[str], flags: Mapping[str, object]) -> None:
    """Be another program, with the flags handed on as settings."""
    given = {f"WARMRACK_{name.upper()}": str(v) for name, v in flags.items() if v is not None}
    os.execve(sys.executable, command, {**os.environ, **given})


def migrate(state_dir: StateDir = None, json: options.Json = False) -> None:
    """Bring the database to the newest schema."""
    from warmrack_store.database import migrate as migrate_database
    from warmrack_store.database import schema_revision
    from warmrack_store.settings import load_settings

    url = load_settings(flags={"state_dir": state_dir}).effective_database_url
    migrate_database(url)
    revision, _ = schema_revision(url)
    if json:
        print_json({"revision": revision})
    else:
        print_line(f"the database is at revision {revision}")


COMMANDS = (up, serve, worker, migrate)
