"""The commands about the contents of caches: verify, quarantine, adopt, export, import."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.help import show_help
from warmrack_daemon.cli.output import print_json, print_line, print_table, say

if TYPE_CHECKING:
    import httpx


_SECONDS = 3700.0
_CHUNK_BYTES = 1 << 20
Node = Annotated[str | None, typer.Option(help="Only this node's cache.")]
OptionalModel = Annotated[str | None, typer.Argument(help=options.MODEL_HELP, metavar="[MODEL]")]
KeptId = Annotated[str, typer.Argument(help="As `quarantine ls` shows it.", metavar="ID")]
kept = typer.Typer(
    help="Wrong files that were moved aside.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
kept.callback()(show_help)


def cache_verify(
    model: OptionalModel = None,
    node: Node = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at sizes and times; read nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Find corrupt, missing and orphan files; corrupt ones go to quarantine."""
    from warmrack_store.errors import Integrity

    found = _ask("verify", {"model": model, "node": node, "quick": quick})
    if json:
        print_json(found)
    else:
        for check in found["items"]:
            _print_check(check)
    if not found["passed"]:
        raise typer.Exit(Integrity.exit_code)


@kept.command("ls")
def quarantine_ls(node: Node = None, json: options.Json = False) -> None:
    """List what was moved aside, where it came from and what was wrong."""
    found = _ask("quarantine", {"act": "ls", "node": node})
    if json:
        print_json(found)
        return
    from warmrack_store.durations import format_size

    rows = [
        (
            one["id"],
            answer["node"],
            one["repository"],
            format_size(one["size_bytes"]),
            one["moved_at"] or "",
            f"digest {one['actual']}" if one["actual"] else one["reason"],
        )
        for answer in found["items"]
        for one in answer["items"]
    ]
    print_table(("id", "node", "repository", "size", "moved at", "what is wrong"), rows)


@kept.command("restore")
def quarantine_restore(kept_id: KeptId, node: Node = None, json: options.Json = False) -> None:
    """Put a file back, if its bytes are right after all."""
    _act("restore", kept_id, node, json=json)


@kept.command("rm")
def quarantine_rm(
    kept_id: Annotated[str | None, typer.Argument(help="Which one.", metavar="[ID]")] = None,
    every: Annotated[bool, typer.Option("--all", help="Everything that is there.")] = False,
    node: Node = None,
    json: options.Json = False,
) -> None:
    """Remove a file of the quarantine for good."""
    from warmrack_store.errors import BadRequest

    if (kept_id is None) != every:
        raise BadRequest("give an id, or --all", hint="`warmrack cache quarantine ls` lists them.")
    _act("rm", kept_id, node, json=json)


def cache_adopt(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A cache on the node's machine; without it, the pool's own."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only this repository.")] = None,
    node: Node = None,
    json: options.Json = False,
) -> None:
    """Take in what other tools have fetched: verified, never downloaded again, never moved."""
    from warmrack_store.errors import Integrity

    place = str(folder.absolute()) if folder is not None else None
    found = _ask("adopt", {"folder": place, "model": model, "node": node})
    if json:
        print_json(found)
    else:
        _print_adopted(found)
    if any(one["wrong"] for one in found["items"]):
        raise typer.Exit(Integrity.exit_code)


def cache_export(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    node: Node = None,
    json: options.Json = False,
) -> None:
    """Write one snapshot to a file that another pool can import."""
    params = {"model": model, **({"node": node} if node else {})}
    with (
        _connected() as client,
        client.stream("GET", "/api/v1/cache/export", params=params) as answer,
    ):
        _raise_for(answer)
        size_bytes = int(answer.headers["content-length"])
        _write_whole(output, answer.iter_bytes(), size_bytes)
    if json:
        print_json({"file": str(output), "size_bytes": size_bytes})
    else:
        print_line(f"{output}: {size_bytes} bytes; `warmrack cache import {output}` takes it in")


def cache_import(
    file: Annotated[Path, typer.Argument(help="What `cache export` wrote.")],
    node: Node = None,
    json: options.Json = False,
) -> None:
    """Take in a snapshot from a file: every byte is verified before anybody sees it."""
    from warmrack_store.errors import BadRequest

    try:
        with file.open("rb") as stream:
            found = _send(stream, node)
    except OSError as error:
        raise BadRequest(f"cannot read {file}: {error.strerror}") from error
    if json:
        print_json(found)
        return
    print_line(
        f"{found['repository']}@{found['commit']}: {found['files']} files on {found['node']}, "
        f"{found['written_bytes']} bytes written"
    )
    if found["proof"] != "hub":
        say("the Hub was not asked: the file's own listing was taken for the commit's")


COMMANDS: dict[str, Callable[..., None]] = {
    "verify": cache_verify,
    "adopt": cache_adopt,
    "export": cache_export,
    "import": cache_import,
}


def add_commands(group: typer.Typer) -> None:
    """Put them into the group `cache`."""
    for name, command in COMMANDS.items():
        group.command(name)(command)
    group.add_typer(kept, name="quarantine")


def _send(stream: IO[bytes], node: str | None) -> Any:
    from warmrack_store.cache.archive import MEDIA_TYPE, ArchiveReader

    facts = ArchiveReader(stream).manifest.facts
    size_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    params = {"repository": facts.repository, "commit": facts.commit}
    headers = {"content-length": str(size_bytes), "content-type": MEDIA_TYPE}
    with _connected() as client:
        answer = client.post(
            "/api/v1/cache/import",
            params={**params, **({"node": node} if node else {})},
            content=iter(lambda: stream.read(_CHUNK_BYTES), b""),
            headers=headers,
        )
    _raise_for(answer)
    return answer.json()


def _write_whole(output: Path, chunks: "Iterator[bytes]", size_bytes: int) -> None:
    """The file under its name only once all of it is there."""
    from warmrack_store.errors import BadRequest, HostLost

    part = output.with_name(f"{output.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size_bytes)
            for chunk in chunks:
                stream.write(chunk)
            if stream.tell() != size_bytes:
                raise HostLost(f"the export broke off after {stream.tell()} bytes")
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(output)
    except OSError as error:
        raise BadRequest(f"cannot write {output}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _act(act: str, kept_id: str | None, node: str | None, *, json: bool) -> None:
    found = _ask("quarantine", {"act": act, "id": kept_id, "node": node})
    if json:
        print_json(found)
        return
    for answer in found["items"]:
        for one in answer["items"]:
            print_line(f"{one['id']} on {answer['node']}: {act}")


def _ask(what: str, body: dict[str, Any]) -> Any:
    with _connected() as client:
        answer = client.post(f"/api/v1/cache/{what}", json=body)
    _raise_for(answer)
    return answer.json()


@contextmanager
def _connected() -> "Iterator[httpx.Client]":
    import httpx

    from warmrack.connection import make_connection

    connection = make_connection(None, None, None, _SECONDS)
    try:
        with httpx.Client(**connection.options) as client:
            yield client
    except httpx.RequestError as error:
        raise connection.unreachable(error) from error


def _raise_for(answer: "httpx.Response") -> None:
    from warmrack.answers import read_error
    from warmrack.connection import answer_of

    if not answer.is_success:
        raise read_error(answer_of(answer, body=answer.read()))


def _print_check(check: dict[str, Any]) -> None:
    from warmrack_store.durations import format_size

    how = "looked at" if check["quick"] else "read"
    print_line(
        f"{check['node']}: {check['repositories']} repositories, {check['files']} files, "
        f"{format_size(check['read_bytes'])} {how} in {check['seconds']:.2f} s"
    )
    for one in check["findings"]:
        where = f" ({one['commits'][0][:12]})" if one["commits"] else ""
        moved = f" -> quarantine {one['quarantined']}" if one["quarantined"] else ""
        print_line(f"  {one['kind']:12} {one['repository']}{where} {one['path']}{moved}")


def _print_adopted(found: dict[str, Any]) -> None:
    from warmrack_store.durations import format_size

    words = {
        "hub": "as the Hub has it",
        "listing": "as the listing beside it says; the Hub was not asked",
        "names": "bytes as their names say; nothing proves that they are this commit's",
    }
    for one in found["items"]:
        whole = "whole" if one["complete"] else "partial, will be gone on with"
        print_line(
            f"{one['repository']}@{one['commit'][:12]} on {one['node']}: {one['files']} files, "
            f"{format_size(one['size_bytes'])}, {whole}; {words[one['proof']]}"
        )
        for wrong in one["wrong"]:
            print_line(f"  {wrong['state']:12} {wrong['path']}")
    for one in found["refused"]:
        print_line(f"{one['repository']}@{one['commit'][:12]}: {one['code']}: {one['message']}")
    for name in found["skipped"]:
        print_line(f"{name}: skipped, no model can be named so")
