"""The commands about the catalog: show, build, diff; they need no running service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.help import show_help
from warmrack_daemon.cli.output import print_json, print_line, print_table, say, write

if TYPE_CHECKING:
    from warmrack_store.catalog import Catalog, Substitute

catalog = typer.Typer(
    help="Which repositories are said to stand for which model.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
catalog.callback()(show_help)

Which = Annotated[str | None, typer.Option("--catalog", help="A shipped version, or a file.")]


@catalog.command("show")
def show(
    name: Annotated[str | None, typer.Argument(help="A model's name.", metavar="[NAME]")] = None,
    which: Which = None,
    json: options.Json = False,
) -> None:
    """Show a catalog, or what stands for one model in the shipped one."""
    if name is not None:
        _show_substitutes(name, which, as_json=json)
        return
    found = _find(which)
    if json:
        print_json(_summary(found) | found.model_dump(mode="json", exclude_none=True))
        return
    for key, value in _summary(found).items():
        print_line(f"{key.ljust(9)} {value}")
    print_line(f"{'from'.ljust(9)} {found.provenance.package} {found.provenance.version}")
    print_line(f"{'licence'.ljust(9)} {found.provenance.licence}")
    print_line("")
    rows = [
        (
            entry.four_bit,
            ", ".join(entry.sixteen),
            "" if entry.fp8 is None else f"{entry.fp8.block}, {entry.fp8.row}",
        )
        for entry in found.entries
    ]
    print_table(("4-bit", "16-bit", "fp8"), rows)


@catalog.command("build")
def build(
    wheel: Annotated[
        Path | None, typer.Option(help="A wheel of unsloth; else the installed one.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The file to write; else stdout.")] = None,
    json: options.Json = False,
) -> None:
    """Read a catalog out of an unsloth package, as data: nothing of it is run."""
    from warmrack_store.catalog.building import build_catalog
    from warmrack_store.catalog.shipped import render_catalog
    from warmrack_store.errors import BadRequest

    built = build_catalog(wheel)
    for note in built.left_out:
        say("left out:", note)
    text = render_catalog(built.catalog)
    if output is None:
        write(text)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise BadRequest(f"{output} cannot be written: {error.strerror}") from error
    told = _summary(built.catalog) | {"output": str(output)}
    if json:
        print_json(told | {"left_out": list(built.left_out)})
    else:
        print_line(", ".join(f"{key} {value}" for key, value in told.items()))


@catalog.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help="A shipped version, or a file.", metavar="A")],
    after: Annotated[str, typer.Argument(help="The same, later.", metavar="B")],
    json: options.Json = False,
) -> None:
    """Show what B has that A has not, the reverse, and what they say differently."""
    from dataclasses import asdict

    from warmrack_store.catalog.differences import diff_catalogs

    old, new = _find(before), _find(after)
    found = diff_catalogs(old, new)
    if json:
        ends = {"before": _summary(old), "after": _summary(new)}
        print_json(ends | asdict(found))
        return
    for sign, rows in (("+", found.added), ("-", found.removed)):
        for row in rows:
            print_line(f"{sign} {row}")
    for change in found.changed:
        print_line(f"~ {change.table}: {change.name}: {change.before} -> {change.after}")
    if found.empty:
        print_line(f"{old.version} and {new.version} say the same")


def _find(which: str | None) -> "Catalog":
    """A shipped version, or the catalog in a file of that name."""
    from warmrack.bounded_files import read_bytes
    from warmrack_store.catalog import list_versions, load_catalog
    from warmrack_store.catalog.shipped import parse_catalog

    if which is not None and which not in list_versions() and Path(which).exists():
        return parse_catalog(read_bytes(Path(which)).decode(errors="replace"), which)
    return load_catalog(which)


def _summary(found: "Catalog") -> dict[str, Any]:
    return {"version": found.version, "digest": found.digest, "rows": len(found.entries)}


def _show_substitutes(name: str, which: str | None, *, as_json: bool) -> None:
    from warmrack_store.catalog.substitutes import index_catalog

    found = index_catalog(_find(which)).get(name.lower(), ())
    if as_json:
        print_json({"name": name, "items": [_substitute(one) for one in found]})
        return
    if not found:
        print_line(f"{name} is not in the catalog: it stands for itself")
        return
    rows = [
        (
            one.repository,
            one.precision,
            f"{one.provenance.package} {one.provenance.version}",
            f"{one.origin.file}:{one.origin.line}",
        )
        for one in found
    ]
    print_table(("repository", "precision", "said by", "where"), rows)


def _substitute(one: "Substitute") -> dict[str, Any]:
    origin, provenance = one.origin.model_dump(), one.provenance
    said = {key: getattr(provenance, key) for key in ("package", "version", "licence")}
    return {"repository": one.repository, "precision": one.precision, **said, **origin}
