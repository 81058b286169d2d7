"""The commands about receipts: receipt, pool-key."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_json, print_line, print_record, say, to_json, write
from warmrack_daemon.cli.session import open_client

if TYPE_CHECKING:
    from warmrack import Client, Recheck
    from warmrack_store.envelopes import PublicKey
    from warmrack_store.receipts import Receipt
    from warmrack_store.settings import Settings

_STDIO = "-"
CHECKS = {
    "E1": "repository as asked, commit pinned first",
    "E2": "every file as the Hub has it",
    "E3": "config and class as declared",
    "E4": "no quantization added",
    "E5": "dtypes as stored",
    "E6": "tensor values as in the files",
    "E7": "tokenizer files as they are",
    "E8": "config not changed by the load",
}


def receipt(
    which: Annotated[
        str,
        typer.Argument(
            help="The id of a job or of a receipt; with --verify also an exported file, or -.",
            metavar="JOB|FILE",
        ),
    ],
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check again: of a job, the disk and the memory; of a file, its signature.",
        ),
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(help="Write the receipt, signed by the pool, to this file; - for stdout."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="With --verify FILE: the pool's public key; default: those remembered."),
    ] = None,
    snapshot: Annotated[
        Path | None, typer.Option(help="With --verify FILE: check the files in this folder too.")
    ] = None,
    local: Annotated[
        bool,
        typer.Option("--local", help="With --verify FILE: check the files in the local cache too."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Show the proof of what a job serves, check it again, or take it away signed."""
    from warmrack_store.errors import BadRequest

    offline = verify and _is_file(which)
    if export is not None and verify:
        raise BadRequest("--export and --verify are two different things", hint="One at a time.")
    if not offline and (key is not None or snapshot is not None or local):
        raise BadRequest(
            "--key, --snapshot and --local go with --verify and an exported file",
            hint="Export one with `warmrack receipt JOB --export FILE`.",
        )
    if snapshot is not None and local:
        raise BadRequest("--snapshot and --local name two folders", hint="Give one of them.")
    if offline:
        _verify_file(which, key, snapshot, local=local, json=json)
    elif verify:
        _verify_job(which, json=json)
    elif export is not None:
        _export(which, export)
    else:
        _show(which, json=json)


def pool_key(
    remember: Annotated[
        bool, typer.Option("--remember", help="Trust it from now on, for --verify FILE.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Print the public key that this pool's receipts are signed with."""
    with open_client() as client:
        found = client.pool_key()
    if remember:
        _remember(found.pem)
    if json:
        print_record(found)
    else:
        write(found.pem)


COMMANDS = (receipt, pool_key)


def _is_file(which: str) -> bool:
    """An id holds neither a dot nor a slash; what exists, or could only be a path, is one."""
    return which == _STDIO or "." in which or "/" in which or Path(which).is_file()


def _show(which: str, *, json: bool) -> None:
    with open_client() as client:
        found = client.receipt(which)
    if json:
        print_record(found)
    else:
        _print_receipt(found)


def _export(which: str, target: str) -> None:
    with open_client() as client:
        text = client.export_receipt(which)
        _remember_of(client)
    if target == _STDIO:
        write(text.decode())
        return
    from warmrack_store.errors import BadRequest

    try:
        Path(target).write_bytes(text)
    except OSError as error:
        raise BadRequest(f"cannot write {target}: {error.strerror}") from error
    say(f"{target}: signed; `warmrack receipt --verify {target}` checks it")


def _remember_of(client: "Client") -> None:
    _remember(client.pool_key().pem)


def _remember(pem: str) -> None:
    """The pool that somebody asks for a receipt is one whose key they trust."""
    from warmrack_daemon.trusted_keys import remember_key
    from warmrack_store.envelopes import PublicKey

    public = PublicKey.from_pem(pem.encode())
    place = remember_key(_settings().state_dir, public)
    if place is not None:
        say(f"the pool's key {public.keyid[:16]} is remembered in {place}")


def _verify_file(
    which: str, key: Path | None, snapshot: Path | None, *, local: bool, json: bool
) -> None:
    from warmrack_daemon.exported_receipt import check_folders, list_snapshots
    from warmrack_store.attestation import verify_statement
    from warmrack_store.envelopes import read_envelope

    statement, public = verify_statement(read_envelope(_read(which)), _list_keys(key))
    proved = statement.predicate
    folders: tuple[Path, ...] = () if snapshot is None else (snapshot,)
    if local:
        folders = list_snapshots(proved.receipt, _settings().cache_dir)
    if folders:
        check_folders(proved.receipt, folders)
    shown = " and ".join(map(str, folders))
    if json:
        files = {"folder": shown, "checked": len(proved.receipt.files)} if folders else None
        found = {"verified": True, "keyid": public.keyid, "files": files}
        print_json({**found, "statement": statement.to_json()})
        return
    print_line(f"✓ signed by {public.keyid}")
    print_line(f"receipt {proved.id}, proved {proved.proved_at}")
    if folders:
        print_line(f"✓ {len(proved.receipt.files)} files in {shown} have the receipt's digests")
    _print_receipt(proved.receipt)


def _list_keys(path: Path | None) -> "list[PublicKey]":
    from warmrack_daemon.trusted_keys import list_keys
    from warmrack_store.envelopes import PublicKey

    if path is None:
        return list(list_keys(_settings().state_dir))
    return [PublicKey.from_pem(_read(str(path)))]


def _read(which: str) -> bytes:
    from warmrack.bounded_files import read_bytes

    return sys.stdin.buffer.read() if which == _STDIO else read_bytes(Path(which))


def _settings() -> "Settings":
    from warmrack_store.settings import load_settings

    return load_settings()


def _verify_job(which: str, *, json: bool) -> None:
    """Print what was found, and end with the exit code of `integrity` where it is not good."""
    from warmrack_store.errors import Integrity

    with open_client() as client:
        found = client.verify_receipt(which)
    if json:
        print_json(to_json(found))
    else:
        _print_recheck(found)
    if not found.passed:
        raise typer.Exit(Integrity.exit_code)


def _print_recheck(found: "Recheck") -> None:
    from warmrack_store.durations import format_size

    if found.disk is not None:
        disk = found.disk
        print_line(
            f"disk    {len(disk.files)} files, {format_size(disk.read_bytes)} read on {disk.node} "
            f"in {disk.seconds:.2f} s"
        )
    else:
        print_line("disk    no node holds the files any more")
    if found.memory is not None:
        memory = found.memory
        print_line(
            f"memory  {len(memory.tensors)} tensors, {format_size(memory.read_bytes)} hashed in "
            f"{memory.resident} on {memory.device} in {memory.seconds:.2f} s"
        )
    else:
        print_line("memory  the model is not warm")
    for text in found.differences:
        print_line(f"✗ {text}")
    for text in found.consequences:
        print_line(f"→ {text}")
    if found.passed:
        print_line("✓ as the receipt says")


def _print_receipt(receipt: "Receipt") -> None:
    served = receipt.served
    print_line(f"asked   {receipt.asked}")
    print_line(f"served  {served.repository}@{served.commit} {served.precision}")
    if (adapter := served.adapter) is not None:
        print_line(f"adapter {adapter.repository}@{adapter.commit} {adapter.how}")
    print_line(f"level   {receipt.level}, {'identical' if receipt.identical else 'NOT identical'}")
    print_line(f"files   {len(receipt.files)}")
    if receipt.tensor_root:
        print_line(f"root    {receipt.tensor_root} ({receipt.tensors} tensors)")
    print_line("")
    for name, meaning in CHECKS.items():
        check = receipt.checks.get(name)
        mark = "-" if check is None else "✓" if check.passed else "✗"
        detail = "not checked at this level" if check is None else check.detail
        print_line(f"{mark} {name} {meaning}: {detail}")
