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
    action = named[0] if named[:1] and named[0] in _ACTIONS else None
    _check_options(request, action, models=bool(named), offline=offline)
    if action is None:
        _write(request.lock_file, named, request.fields, as_json=json)
        return
    if len(named) > 1:
        raise BadRequest(f"lock {action} takes no models", hint="It looks at the whole file.")
    found = read_lock(request.lock_file)
    if action == "diff":
        _diff(found, as_json=json)
    else:
        _verify(found, offline=offline, as_json=json)


COMMANDS = (lock,)


def _check_options(request: Requested, action: str | None, *, models: bool, offline: bool) -> None:
    """Raise BadRequest for the first option that would change nothing."""
    if offline and action != "verify":
        raise BadRequest(
            "--offline belongs to lock verify",
            hint="To lock from what is known here: warmrack lock MODEL --network offline.",
        )
    if request.locked:
        raise BadRequest(
            "--locked has no meaning for lock, which writes and reads the file itself",
            hint="Leave it out; `warmrack load MODEL --locked` is held to the file.",
        )
    if action is None and models:
        return
    given = [f"--{name.replace('_', '-')}" for name in request.fields]
    if request.unsloth_args is not None:
        given = ["--unsloth-args"]
    if given:
        command = f"lock {action}" if action else "lock without a model"
        raise BadRequest(
            f"{given[0]} has no meaning for {command}: each entry has its own options",
            hint=f"Leave it out; to lock a model with it: warmrack lock MODEL {given[0]} VALUE.",
        )


def _write(
    path: Path, models: Sequence[str], fields: Mapping[str, object], *, as_json: bool
) -> None:
    from warmrack.lockfile import LockEntry, find_lock, read_lock
    from warmrack_store.records import parse_record
    from warmrack_store.requests import LoadRequest

    held = find_lock(path) if models else read_lock(path)
    wanted = [parse_record(LoadRequest, {**fields, "model": model}) for model in models]
    wanted = wanted or [entry.request for entry in (held.entries if held else ())]
    with open_client() as client:
        made = [
            LockEntry(request=request, locked=_resolve(client, request).lock())
            for request in wanted
        ]
        lock_file = _merge(client, path, made)
    if as_json:
        print_json(lock_file.model_dump(mode="json"))
        return
    for entry in made:
        print_line(f"locked {entry.title}: {_describe(entry)}")


def _merge(client: "Client", path: Path, made: "Sequence[LockEntry]") -> "LockFile":
    """The file with the new entries, beside what others have locked meanwhile."""
    from warmrack.file_changes import changing
    from warmrack.lockfile import LockFile, find_lock, write_lock

    with changing(path):
        held = find_lock(path)
        merged = LockFile.of((*(held.entries if held else ()), *made))
        keep_lock(client, merged)
        write_lock(path, merged)
    return merged


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
            changes[entry.title] = found_here
    if as_json:
        print_json({"changes": {title: list(held) for title, held in changes.items() if held}})
    else:
        for title, held in changes.items():
            for change in held:
                print_line(f"{title}: {change}")
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
        print_json({"verified": [entry.title for entry in found.entries]})
        return
    for entry in found.entries:
        print_line(f"ok {entry.title}: {_describe(entry)}")


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
                try:
                    if not place.is_file():
                        missing.append(str(place))
                    elif find_verified(place, file) is None:
                        wrong.append(str(place))
                except OSError as error:
                    raise BadRequest(
                        f"{place} cannot be read: {error.strerror}",
                        hint="Run it as the user whose cache it is.",
                    ) from error
    return tuple(wrong), tuple(missing)


def _resolve(client: "Client", request: "LoadRequest") -> "Resolution":
    fields = request.model_dump(mode="json", exclude_defaults=True)
    return client.explain(fields.pop("model"), **fields)


def _describe(entry: "LockEntry") -> str:
    locked = entry.locked
    instead = "" if locked.substitution in ("none", "alias") else f" ({locked.substitution})"
    return f"{locked.precision} from {locked.repository}@{locked.commit[:12]}{instead}"
