"""The command about models.lock: lock, lock diff, lock verify."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.kept_locks import keep_lock
from warmrack_daemon.cli.output import print_json, print_line, say
from warmrack_daemon.cli.requested import Requested, requested
from warmrack_daemon.cli.session import open_client
from warmrack_store.errors import BadRequest, Integrity, OfflineMiss, Refusal

if TYPE_CHECKING:
    from warmrack import Client
    from warmrack.lockfile import LockEntry, LockFile
    from warmrack_store.requests import LoadRequest
    from warmrack_store.resolution import Resolution

_ACTIONS = ("diff", "verify")
_CHANGED = 1
"""The exit code of a diff that found something, as of diff(1)."""


@requested
def lock(
    request: Requested,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models to lock; none: all of the file anew. Or: diff, or verify.",
            metavar="[MODEL]...|diff|verify",
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="With verify: check the files in the local cache.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Pin models to what they resolve to now; show what would change; check what is there."""
    from warmrack.lockfile import read_lock

    named = models or []
    if named[:1] and named[0] in _ACTIONS:
        if len(named) > 1:
            raise BadRequest(f"lock {named[0]} takes no models", hint="It looks at the whole file.")
        found = read_lock(request.lock_file)
        if named[0] == "diff":
            _diff(found, as_json=json)
        else:
            _verify(found, offline=offline, as_json=json)
        return
    _write(request.lock_file, named, request.fields, as_json=json)


COMMANDS = (lock,)


def _write(
    path: Path, models: Sequence[str], fields: Mapping[str, object], *, as_json: bool
) -> None:
    from warmrack.lockfile import LockEntry, LockFile, read_lock, write_lock
    from warmrack_store.records import parse_record
    from warmrack_store.requests import LoadRequest

    held = read_lock(path).entries if path.exists() or not models else ()
    wanted = [parse_record(LoadRequest, {**fields, "model": model}) for model in models]
    wanted = wanted or [entry.request for entry in held]
    with open_client() as client:
        made = [
            LockEntry(request=request, locked=_resolve(client, request).lock())
            for request in wanted
        ]
        lock_file = LockFile.of((*held, *made))
        keep_lock(client, lock_file)
    write_lock(path, lock_file)
    if as_json:
        print_json(lock_file.model_dump(mode="json"))
        return
    for entry in made:
        print_line(f"locked {entry.request.model}: {_describe(entry)}")


def _diff(found: "LockFile", *, as_json: bool) -> None:
    """Exits 1 where a branch, a repository or a catalog leads elsewhere than locked."""
    from warmrack_store.locks import list_differences

    changes: dict[str, tuple[str, ...]] = {}
    with open_client() as client:
        for entry in found.entries:
            try:
                now = _resolve(client, entry.request).lock()
                found_here = list_differences(entry.locked, now)
            except Refusal as refusal:
                found_here = (f"{refusal.code}: {refusal.message}",)
            # A model may be locked more than once, in several precisions.
            changes[entry.request.model] = (*changes.get(entry.request.model, ()), *found_here)
    if as_json:
        print_json({"changes": {model: list(held) for model, held in changes.items() if held}})
    else:
        for model, held in changes.items():
            for change in held:
                print_line(f"{model}: {change}")
    if any(changes.values()):
        raise typer.Exit(_CHANGED)
    say("nothing has changed")


def _verify(found: "LockFile", *, offline: bool, as_json: bool) -> None:
    """Raises Integrity for files that are not as locked, OfflineMiss for those that are not there."""
    if offline:
        wrong, missing = _check_cache(found)
    else:
        wrong, missing = (), ()
        with open_client() as client:
            for entry in found.entries:
                _resolve(client, entry.ask())
    if wrong:
        raise Integrity(f"{wrong[0]} is not as locked ({len(wrong)} in all)")
    if missing:
        raise OfflineMiss(f"{missing[0]} is not in the local cache ({len(missing)} in all)")
    if as_json:
        print_json({"verified": [entry.request.model for entry in found.entries]})
        return
    for entry in found.entries:
        print_line(f"ok {entry.request.model}: {_describe(entry)}")


def _check_cache(found: "LockFile") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files that have other bytes, and those that are missing."""
    from warmrack_store.cache.layout import RepositoryLayout
    from warmrack_store.cache.verified import find_verified
    from warmrack_store.settings import load_settings

    cache_dir = load_settings().cache_dir
    wrong, missing = [], []
    for entry in found.entries:
        locked = entry.locked
        for part in (locked, *((locked.adapter,) if locked.adapter is not None else ())):
            layout = RepositoryLayout(cache_dir=cache_dir, repository=part.repository)
            for file in part.files:
                place = layout.snapshot(part.commit) / file.path
                if not place.is_file():
                    missing.append(str(place))
                elif find_verified(place, file) is None:
                    wrong.append(str(place))
    return tuple(wrong), tuple(missing)


def _resolve(client: "Client", request: "LoadRequest") -> "Resolution":
    fields = request.model_dump(mode="json", exclude_defaults=True)
    return client.explain(fields.pop("model"), **fields)


def _describe(entry: "LockEntry") -> str:
    locked = entry.locked
    instead = "" if locked.substitution in ("none", "alias") else f" ({locked.substitution})"
    return f"{locked.precision} from {locked.repository}@{locked.commit[:12]}{instead}"
