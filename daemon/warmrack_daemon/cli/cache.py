"""The commands about what lies on the pool's disks: the group `cache`."""

from typing import Annotated

import typer

from warmrack_daemon.cli import disks, options
from warmrack_daemon.cli.help import show_help
from warmrack_daemon.cli.output import print_list, print_table
from warmrack_daemon.cli.session import open_client

cache = typer.Typer(
    help="What the pool's disks hold.", invoke_without_command=True, rich_markup_mode=None
)
cache.callback()(show_help)
for _name, _command in disks.COMMANDS:
    cache.command(_name)(_command)


@cache.command("ls")
def cache_ls(json: options.Json = False) -> None:
    """List the snapshots that the pool's disks hold."""
    with open_client() as client:
        found = client.snapshots()
    if json:
        print_list(found)
        return
    from warmrack_store.durations import format_size

    rows = [
        (
            one.repository,
            one.commit[:12],
            ", ".join(one.nodes) or one.store,
            format_size(one.bytes_done),
            "complete" if one.complete else f"of {format_size(one.bytes_total)}",
        )
        for one in found
    ]
    print_table(("repository", "commit", "where", "bytes", "state"), rows)


@cache.command("egress")
def cache_egress(
    by: Annotated[str, typer.Option(help="job, tenant or repository.")] = "repository",
    json: options.Json = False,
) -> None:
    """Show where the bytes of files came from: Hub, other nodes, disk, other jobs' fetches."""
    with open_client() as client:
        found = client.egress(by)
    if json:
        print_list(found)
        return
    from warmrack_store.durations import format_size

    sources = ("hub_bytes", "peer_bytes", "local_bytes", "deduplicated_bytes")
    rows = [
        (getattr(one, by), *(format_size(getattr(one, name)) for name in sources)) for one in found
    ]
    total = (format_size(sum(getattr(one, name) for one in found)) for name in sources)
    columns = (by, "from the hub", "from peers", "already here", "deduplicated")
    print_table(columns, [*rows, ("all", *total)])
