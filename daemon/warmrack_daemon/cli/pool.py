"""The commands about the pool: ps, unload, nodes."""

from typing import Annotated

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_line, print_list, print_table
from warmrack_daemon.cli.session import open_client

_UNLOAD_SECONDS = 120.0
"""A long answer may have to end first."""


def ps(json: options.Json = False) -> None:
    """List the models that are in memory."""
    with open_client() as client:
        found = client.residents()
    if json:
        print_list(found)
        return
    from warmrack_store.durations import format_duration, format_size

    rows = [
        (
            one.id,
            f"{one.model}@{(one.commit or '')[:8]}",
            one.precision,
            one.state,
            f"{one.node or ''} {one.device or ''}".strip(),
            format_size(one.bytes),
            one.leases,
            "pinned" if one.pinned else format_duration(one.idle_seconds or 0.0),
        )
        for one in found
    ]
    print_table(("id", "model", "precision", "state", "device", "memory", "uses", "idle"), rows)


def unload(
    which: Annotated[
        str | None, typer.Argument(help="A model or a resident's id.", metavar="[MODEL|ID]")
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Every model.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until they are gone.")] = (
        False
    ),
    json: options.Json = False,
) -> None:
    """Let models finish their work and give their memory back."""
    from warmrack_store.errors import BadRequest

    if (which is None) != all:
        raise BadRequest("give a model or an id, or --all", hint="One of the two, not both.")
    seconds = 0.0 if no_wait else _UNLOAD_SECONDS
    with open_client() as client:
        names = [which] if which is not None else [one.id for one in client.residents()]
        gone = [one for name in names for one in client.unload(name, wait_seconds=seconds)]
    if json:
        print_list(gone)
        return
    for one in gone:
        print_line(f"{'unloading' if no_wait else 'unloaded'} {one.model} ({one.id})")


def nodes(json: options.Json = False) -> None:
    """List the nodes and their devices."""
    with open_client() as client:
        found = client.nodes()
    if json:
        print_list(found)
        return
    from warmrack_store.durations import format_size

    rows = [
        (
            node.name,
            node.state,
            device.name,
            "" if device.budget_bytes is None else format_size(device.budget_bytes),
            "" if device.used_bytes is None else format_size(device.used_bytes),
            node.url,
        )
        for node in found
        for device in node.devices
    ]
    rows += [(node.name, node.state, "", "", "", node.url) for node in found if not node.devices]
    print_table(("name", "state", "device", "memory", "used", "url"), rows)


COMMANDS = (ps, unload, nodes)
