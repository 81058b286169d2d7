"""What a lock keeps of a resolution: all that does not depend on the cluster that made it."""

from pydantic import Field

from warmrack_store.facts import FileFact
from warmrack_store.records import Record


class LockedAdapter(Record):
    """The adapter that goes on the locked base."""

    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    files: tuple[FileFact, ...] = Field(max_length=100)


class LockedLoad(Record):
    """One request's answer: the repository that serves it, its commit, files and load."""

    asked_commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    """Of the repository that the request names; where that is an adapter, of its base."""
    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    substitution: str
    precision: str
    cast: str | None = None
    quantization: str | None = None
    """Method and source, as in `nf4 on_the_fly`."""
    files: tuple[FileFact, ...] = Field(max_length=10_000)
    adapter: LockedAdapter | None = None
    catalog_version: str


def list_differences(locked: LockedLoad, now: LockedLoad) -> tuple[str, ...]:
    """What is not as locked, in words; empty where all is."""
    found = [
        f"{name} is {getattr(now, name)}, locked {getattr(locked, name)}"
        for name in (
            *("repository", "commit", "asked_commit"),
            *("substitution", "precision", "cast", "quantization"),
        )
        if getattr(locked, name) != getattr(now, name)
    ]
    found += [
        f"adapter {name} is {_read(now.adapter, name)}, locked {_read(locked.adapter, name)}"
        for name in ("repository", "commit")
        if _read(locked.adapter, name) != _read(now.adapter, name)
    ]
    before = {file.path: file for file in _list_files(locked)}
    after = {file.path: file for file in _list_files(now)}
    found += [f"{path} is new" for path in sorted(after.keys() - before.keys())]
    found += [f"{path} is gone" for path in sorted(before.keys() - after.keys())]
    found += [
        f"{path} has digest {after[path].digest}, locked {before[path].digest}"
        for path in sorted(before.keys() & after.keys())
        if before[path].digest != after[path].digest
    ]
    return tuple(found)


def _read(adapter: LockedAdapter | None, name: str) -> str | None:
    return None if adapter is None else str(getattr(adapter, name))


def _list_files(locked: LockedLoad) -> tuple[FileFact, ...]:
    return (*locked.files, *(locked.adapter.files if locked.adapter is not None else ()))
