"""What a lock keeps of a resolution: all that does not depend on the cluster that made it."""

from pydantic import Field

from warmrack_store.facts import FileFact
from warmrack_store.records import Record


class LockedLoad(Record):
    """One request's answer: the repository that serves it, its commit, files and load."""

    asked_commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    """Of the repository that the request names."""
    repository: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    substitution: str
    precision: str
    cast: str | None = None
    quantization: str | None = None
    """Method and source, as in `nf4 on_the_fly`."""
    files: tuple[FileFact, ...] = Field(max_length=10_000)
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
    before = {file.path: file for file in locked.files}
    after = {file.path: file for file in now.files}
    found += [f"{path} is new" for path in sorted(after.keys() - before.keys())]
    found += [f"{path} is gone" for path in sorted(before.keys() - after.keys())]
    found += [
        f"{path} has digest {after[path].digest}, locked {before[path].digest}"
        for path in sorted(before.keys() & after.keys())
        if before[path].digest != after[path].digest
    ]
    return tuple(found)
