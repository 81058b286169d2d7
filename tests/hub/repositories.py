"""The repositories a test Hub holds: commits that never change under refs that move."""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from tests.hub.files import StoredFile, store_bytes, store_file

# Dates are counted from here, one minute a commit, so that a listing is the same on every run.
_FIRST_COMMIT_AT = datetime(2026, 1, 1, tzinfo=UTC)
_NOT_CONTENT = frozenset((".git", ".cache", "__pycache__"))


class RefKind(StrEnum):
    BRANCH = "branch"
    TAG = "tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    created_at: datetime
    files: Mapping[str, StoredFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One repository as it is now; a change makes a new record."""

    name: str
    commits: Mapping[str, Commit]
    branches: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    labels: tuple[str, ...] = ()
    private: bool = False
    gated: bool = False
    disabled: bool = False

    def find_commit(self, revision: str) -> Commit | None:
        """The commit a full sha, branch or tag names; a full `refs/...` name is understood too."""
        branch = revision.removeprefix("refs/heads/")
        tag = revision.removeprefix("refs/tags/")
        sha = self.branches.get(branch) or self.tags.get(tag) or revision
        return self.commits.get(sha)

    def get_commit(self, revision: str) -> Commit:
        commit = self.find_commit(revision)
        if commit is None:
            raise KeyError(f"{self.name} has no revision {revision!r}")
        return commit

    def list_history(self, commit: Commit) -> list[Commit]:
        """The commit and its ancestors, the newest first."""
        history = [commit]
        while (parent := self.commits.get(history[-1].parent or "")) is not None:
            history.append(parent)
        return history

    @property
    def created_at(self) -> datetime:
        return min(commit.created_at for commit in self.commits.values())


class Repositories:
    """Every repository by name; safe to change while other threads read."""

    def __init__(self, objects: Path) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._held: dict[str, Repository] = {}
        self._moved: dict[str, str] = {}

    def find(self, name: str) -> Repository | None:
        return self._held.get(name)

    def get(self, name: str) -> Repository:
        repository = self.find(name)
        if repository is None:
            raise KeyError(f"no repository {name!r}")
        return repository

    def find_new_name(self, name: str) -> str | None:
        """Where a repository that was renamed is now."""
        while (new_name := self._moved.get(name)) is not None:
            name = new_name
            if name in self._held:
                return name
        return None

    def list_all(self) -> list[Repository]:
        return [self._held[name] for name in sorted(self._held)]

    def add(
        self,
        name: str,
        folder: Path,
        *,
        labels: Iterable[str] = (),
        private: bool = False,
        gated: bool = False,
        disabled: bool = False,
    ) -> Commit:
        """Make or replace a repository whose `main` is one commit with the folder's files."""
        files = self._read_folder(folder)
        commit = _make_commit(name, None, "initial commit", 0, files)
        with self._lock:
            self._held[name] = Repository(
                name=name,
                commits=MappingProxyType({commit.sha: commit}),
                branches=MappingProxyType({"main": commit.sha}),
                labels=tuple(labels),
                private=private,
                gated=gated,
                disabled=disabled,
            )
            self._moved.pop(name, None)
        return commit

    def commit(
        self,
        name: str,
        *,
        branch: str = "main",
        folder: Path | None = None,
        files: Mapping[str, bytes] | None = None,
        removed: Iterable[str] = (),
        title: str = "another commit",
    ) -> Commit:
        """Move a branch on by one commit: a folder replaces the whole tree, then `files` are laid
        over it and `removed` taken out. A branch that does not exist starts from `main`."""
        laid_tree = None if folder is None else self._read_folder(folder)
        laid = {
            path: store_bytes(body, path, self._objects) for path, body in (files or {}).items()
        }
        with self._lock:
            repository = self.get(name)
            parent = repository.find_commit(f"refs/heads/{branch}") or repository.get_commit("main")
            tree = dict(parent.files) if laid_tree is None else laid_tree
            tree.update(laid)
            for path in removed:
                del tree[path]
            commit = _make_commit(name, parent.sha, title, len(repository.commits), tree)
            self._held[name] = replace(
                repository,
                commits=MappingProxyType({**repository.commits, commit.sha: commit}),
                branches=MappingProxyType({**repository.branches, branch: commit.sha}),
            )
        return commit

    def force_push(self, name: str, *, branch: str, files: Mapping[str, bytes]) -> Commit:
        """Put a branch on a commit without ancestors: its tree, with `files` laid over it."""
        laid = {path: store_bytes(body, path, self._objects) for path, body in files.items()}
        with self._lock:
            repository = self.get(name)
            tree = {**repository.get_commit(branch).files, **laid}
            commit = _make_commit(name, None, "pushed by force", len(repository.commits), tree)
            self._held[name] = replace(
                repository,
                commits=MappingProxyType({**repository.commits, commit.sha: commit}),
                branches=MappingProxyType({**repository.branches, branch: commit.sha}),
            )
        return commit

    def remove_commit(self, name: str, sha: str) -> None:
        """Forget a commit that no branch or tag is on, as the Hub does after a while."""
        with self._lock:
            repository = self.get(name)
            if sha in (*repository.branches.values(), *repository.tags.values()):
                raise ValueError(f"a branch or tag of {name} is on {sha}")
            kept = {held: commit for held, commit in repository.commits.items() if held != sha}
            self._held[name] = replace(repository, commits=MappingProxyType(kept))

    def set_ref(self, name: str, kind: RefKind, ref: str, revision: str | None) -> None:
        """Point a branch or tag at a revision, or remove it when the revision is None."""
        with self._lock:
            repository = self.get(name)
            refs = dict(repository.branches if kind is RefKind.BRANCH else repository.tags)
            if revision is None:
                del refs[ref]
            else:
                refs[ref] = repository.get_commit(revision).sha
            frozen = MappingProxyType(refs)
            if kind is RefKind.BRANCH:
                self._held[name] = replace(repository, branches=frozen)
            else:
                self._held[name] = replace(repository, tags=frozen)

    def change(
        self,
        name: str,
        *,
        private: bool | None = None,
        gated: bool | None = None,
        disabled: bool | None = None,
    ) -> None:
        with self._lock:
            old = self.get(name)
            self._held[name] = replace(
                old,
                private=old.private if private is None else private,
                gated=old.gated if gated is None else gated,
                disabled=old.disabled if disabled is None else disabled,
            )

    def move(self, name: str, new_name: str) -> None:
        """Rename a repository; its old name redirects from then on."""
        with self._lock:
            self._held[new_name] = replace(self.get(name), name=new_name)
            del self._held[name]
            self._moved[name] = new_name

    def remove(self, name: str) -> None:
        with self._lock:
            del self._held[name]

    def _read_folder(self, folder: Path) -> dict[str, StoredFile]:
        found: dict[str, StoredFile] = {}
        for source in sorted(folder.rglob("*")):
            relative = source.relative_to(folder)
            if source.is_file() and not _NOT_CONTENT.intersection(relative.parts):
                path = relative.as_posix()
                found[path] = store_file(source, path, self._objects)
        if not found:
            raise FileNotFoundError(f"{folder} holds no file to serve")
        return found


def _make_commit(
    name: str, parent: str | None, title: str, number: int, files: Mapping[str, StoredFile]
) -> Commit:
    """The sha depends on names and content alone, so the same folder gives the same commit."""
    tree = sorted((path, stored.etag) for path, stored in files.items())
    described = json.dumps([name, parent, title, number, tree])
    return Commit(
        sha=hashlib.sha1(described.encode()).hexdigest(),
        parent=parent,
        title=title,
        created_at=_FIRST_COMMIT_AT + timedelta(minutes=number),
        files=MappingProxyType(dict(sorted(files.items()))),
    )
