"""Where the Hugging Face cache keeps what belongs to one repository; pure paths."""

import re
from dataclasses import dataclass
from pathlib import Path

from warmrack_store.errors import BadRequest
from warmrack_store.refs import check_file_path, check_repository, check_revision, is_commit

_DIGEST = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryLayout:
    """The paths of one model repository; a name that would leave its folder is a BadRequest."""

    cache_dir: Path
    repository: str

    def __post_init__(self) -> None:
        check_repository(self.repository)

    @property
    def folder_name(self) -> str:
        return f"models--{self.repository.replace('/', '--')}"

    @property
    def folder(self) -> Path:
        return self.cache_dir / self.folder_name

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    @property
    def snapshots(self) -> Path:
        return self.folder / "snapshots"

    @property
    def refs(self) -> Path:
        return self.folder / "refs"

    @property
    def trees(self) -> Path:
        """Listings of whole trees; with one present, stock loads insist on every file of it."""
        return self.folder / "trees"

    @property
    def work(self) -> Path:
        """Ours: partial files, snapshots being built, quarantine. Beside `blobs`, so that a blob's
        relative link means the same in both, and a rename never crosses a file system."""
        return self.folder / ".warmrack"

    @property
    def locks(self) -> Path:
        return self.cache_dir / ".locks" / self.folder_name

    def blob(self, digest: str) -> Path:
        return self.blobs / check_digest(digest)

    def part(self, digest: str) -> Path:
        """Bytes of a blob that have arrived and are not verified yet."""
        return self.work / f"{check_digest(digest)}.part"

    def journal(self, digest: str) -> Path:
        """Which bytes of the part have arrived."""
        return self.work / f"{check_digest(digest)}.pieces"

    def lock(self, digest: str) -> Path:
        """The file on which huggingface_hub locks while it downloads this blob."""
        return self.locks / f"{check_digest(digest)}.lock"

    def snapshot(self, commit: str) -> Path:
        return self.snapshots / check_commit(commit)

    def building(self, commit: str) -> Path:
        """The snapshot's folder before it is renamed into place."""
        return self.work / f"{check_commit(commit)}.new"

    def tree(self, commit: str) -> Path:
        return self.trees / f"{check_commit(commit)}.json"

    def ref(self, name: str) -> Path:
        return self.refs / check_revision(name)

    def link_target(self, path: str, digest: str) -> str:
        """What the link at `path` inside a snapshot says: relative, so that a cache can be moved."""
        depth = check_file_path(path).count("/") + 2
        return f"{'../' * depth}blobs/{check_digest(digest)}"


def check_digest(digest: str) -> str:
    """`digest` itself where it is a sha256 or a git sha1 in hex; BadRequest else."""
    if not _DIGEST.fullmatch(digest):
        raise BadRequest(f"{digest[:100]!r} is not a sha256 or git sha1 in hex")
    return digest


def check_commit(commit: str) -> str:
    """`commit` itself where it is 40 hex digits; BadRequest else."""
    if not is_commit(commit):
        raise BadRequest(f"{commit[:100]!r} is not a commit: 40 hex digits are")
    return commit
