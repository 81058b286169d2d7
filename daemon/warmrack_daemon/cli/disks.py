"""The commands about the room on the pool's disks: cache evict, rm, df."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_json, print_line, print_table, say
from warmrack_daemon.cli.session import open_client

Node = Annotated[str | None, typer.Option(help="Only this node's store.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go; delete nothing.")]


def cache_evict(
    bytes: Annotated[
        str | None, typer.Option("--bytes", help="How much to free, e.g. 20GiB.")
    ] = None,
    to_low_watermark: Annotated[
        bool, typer.Option("--to-low-watermark", help="Down to the low watermark.")
    ] = False,
    node: Node = None,
    dry_run: DryRun = False,
    json: options.Json = False,
) -> None:
    """Free room on the disks: what is used least goes, never what somebody needs."""
    from warmrack_store.durations import parse_size
    from warmrack_store.errors import BadRequest

    if (bytes is None) != to_low_watermark:
        raise BadRequest("give --bytes or --to-low-watermark", hint="One of the two, not both.")
    wanted = parse_size(bytes) if bytes is not None else None
    with open_client() as client:
        found = client.evict(
            bytes_wanted=wanted, to_low_watermark=to_low_watermark, node=node, dry_run=dry_run
        )
    _show(found, json=json)
    if not all(one["reached"] for one in found):
        raise typer.Exit(1)


def cache_rm(
    model: Annotated[str, typer.Argument(help="MODEL or MODEL@COMMIT.", metavar="MODEL[@REV]")],
    node: Node = None,
    dry_run: DryRun = False,
    json: options.Json = False,
) -> None:
    """Remove a model's snapshots from the disks."""
    with open_client() as client:
        found = client.remove_snapshots(model, node=node, dry_run=dry_run)
    _show(found, json=json)


def cache_df(node: Node = None, json: options.Json = False) -> None:
    """Show how full the disks are, after comparing them with SQL and mending what is ours."""
    with open_client() as client:
        found = client.check_disks(node=node)
    if json:
        print_json({"items": list(found), "next": None})
        return
    from warmrack_store.durations import format_size

    sizes = ("used_bytes", "ours_bytes", "promised_bytes", "quota_bytes", "free_bytes")
    rows = [
        (one["node"], *("" if one[name] is None else format_size(one[name]) for name in sizes))
        for one in found
    ]
    print_table(("node", "used", "can go", "promised", "quota", "disk free"), rows)
    for one in found:
        for line in one["mended"]:
            say(f"{one['node']}: {line}")


def _show(found: Iterable[Mapping[str, Any]], *, json: bool) -> None:
    evictions = list(found)
    if json:
        print_json({"items": evictions, "next": None})
        return
    from warmrack_store.durations import format_size

    for eviction in evictions:
        verb = "would go" if eviction["dry_run"] else "went"
        for one in eviction["gone"]:
            name, size = _name(one), format_size(one["freed_bytes"])
            print_line(f"{eviction['node']}: {name} {verb}, {size}: {one['reason']}")
        total = format_size(eviction["freed_bytes"])
        print_line(f"{eviction['node']}: {total} {'would be ' if eviction['dry_run'] else ''}freed")
        if not eviction["reached"]:
            say(f"{eviction['node']}: {format_size(eviction['needed_bytes'])} were wanted")
            for one in eviction["kept"]:
                say(f"{eviction['node']}: {_name(one)} stays: {one['reason']}")


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['repository']}@{one['commit'][:12]}" if one["commit"] else one["repository"]


COMMANDS = (("evict", cache_evict), ("rm", cache_rm), ("df", cache_df))
