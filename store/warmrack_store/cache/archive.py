"""One snapshot as one file: a plain tar of a manifest and the blobs it names, in its order.

The same snapshot is the same bytes: no times, owners or modes of this machine. A reader takes the
members only as the manifest announces them, so that no name, link or size of the tar decides
where anything is written.
"""

import tarfile
from collections.abc import Iterator
from typing import Protocol

from pydantic import Field, ValidationError

from warmrack_store.cache.layout import RepositoryLayout, check_digest
from warmrack_store.cache.verified import BlobHasher
from warmrack_store.errors import BadRequest, Integrity
from warmrack_store.facts import FileFact, RepositoryFacts
from warmrack_store.records import Record
from warmrack_store.refs import check_file_path, check_repository, check_revision
from warmrack_store.tensors import TensorLeaf

MEDIA_TYPE = "application/vnd.warmrack.snapshot+tar"
FORMAT = "warmrack-snapshot/1"
_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 64 * 2**20
_BLOCK_BYTES = 512
_RECORD_BYTES = 20 * _BLOCK_BYTES
"""A tar's length is a multiple of this (POSIX)."""
_CHUNK_BYTES = 1 << 20
_MODE = 0o644
_HINT = "Export it again, and compare the two files' digests after the transport."


class Manifest(Record):
    """What the archive holds and all that is known of it."""

    format: str = FORMAT
    facts: RepositoryFacts
    """The Hub's whole tree at the commit, the config and the headers of the weights."""
    refs: tuple[str, ...] = ()
    """Branches and tags that meant this commit; the empty text is the default branch."""
    paths: tuple[str, ...]
    """The files that are in the archive."""
    leaves: dict[str, tuple[TensorLeaf, ...]] = Field(default_factory=dict)
    """Tensor digests by the digest of their file."""

    @property
    def files(self) -> tuple[FileFact, ...]:
        tree = {file.path: file for file in self.facts.files}
        return tuple(tree[path] for path in self.paths)

    @property
    def blobs(self) -> tuple[FileFact, ...]:
        """One file for each distinct digest, in the order of the members."""
        return tuple({file.digest: file for file in self.files}.values())

    def check(self) -> None:
        """Raise BadRequest for what no snapshot of a Hub can be."""
        check_repository(self.facts.repository)
        tree = {check_file_path(file.path) for file in self.facts.files}
        for name in filter(None, self.refs):
            check_revision(name)
        strangers = sorted(set(self.paths) - tree)
        if self.format != FORMAT or strangers or len(set(self.paths)) != len(self.paths):
            raise BadRequest(f"no manifest of {FORMAT}: {strangers[:1] or self.format}", hint=_HINT)


class Source(Protocol):
    """Where an archive is read from; `read` gives fewer bytes only at the end."""

    def read(self, size_bytes: int, /) -> bytes: ...


def archive_size(manifest: Manifest) -> int:
    """The exact length of the archive, before a byte of it is made."""
    parts = [len(_manifest_body(manifest)), *(file.size for file in manifest.blobs)]
    size_bytes = sum(_BLOCK_BYTES + _padded(part) for part in parts) + 2 * _BLOCK_BYTES
    return -(-size_bytes // _RECORD_BYTES) * _RECORD_BYTES


def write_archive(layout: RepositoryLayout, manifest: Manifest) -> Iterator[bytes]:
    """The archive, piece by piece, each file hashed while it passes.

    Raises Integrity in the middle where a file is not what the manifest says; what was read until
    then is no archive, since its end is missing.
    """
    body = _manifest_body(manifest)
    sent_bytes = 0
    for chunk in _member(_MANIFEST, len(body), iter((body,))):
        sent_bytes += len(chunk)
        yield chunk
    for file in manifest.blobs:
        for chunk in _member(_name(file), file.size, _read_blob(layout, file)):
            sent_bytes += len(chunk)
            yield chunk
    yield bytes(archive_size(manifest) - sent_bytes)


class ArchiveReader:
    """Reads an archive once, from its first byte; memory stays that of one chunk."""

    def __init__(self, source: Source) -> None:
        """Raises BadRequest where it does not start as one of ours."""
        self._source = source
        size_bytes = self._next_member(_MANIFEST, None)
        if size_bytes > _MAX_MANIFEST_BYTES:
            raise BadRequest(f"a manifest of {size_bytes} bytes is refused", hint=_HINT)
        body = b"".join(self._read_member(size_bytes))
        try:
            self.manifest = Manifest.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise BadRequest(f"{_MANIFEST}: {first['loc']}: {first['msg']}", hint=_HINT) from error
        self.manifest.check()

    def read_blob(self, file: FileFact) -> Iterator[bytes]:
        """The bytes of the next blob, which must be `file`; to be asked in the manifest's order,
        each to its end. Raises Integrity where the archive ends or goes on otherwise."""
        self._next_member(_name(file), file.size)
        yield from self._read_member(file.size)

    def check_end(self) -> None:
        """Raise Integrity unless nothing but the tar's own end follows."""
        if self._exactly(_BLOCK_BYTES).strip(b"\0"):
            raise Integrity("the archive goes on after its last file", hint=_HINT)

    def _next_member(self, name: str, size_bytes: int | None) -> int:
        try:
            member = tarfile.TarInfo.frombuf(self._exactly(_BLOCK_BYTES), "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise Integrity(f"no {name} follows in the archive: {error}", hint=_HINT) from error
        wrong = member.name != name or member.type != tarfile.REGTYPE or member.size < 0
        if wrong or size_bytes not in (None, member.size):
            raise Integrity(
                f"the archive has {member.name[:80]!r} of {member.size} bytes where {name} of "
                f"{size_bytes} is due",
                hint=_HINT,
            )
        return member.size

    def _read_member(self, size_bytes: int) -> Iterator[bytes]:
        left = size_bytes
        while left:
            chunk = self._exactly(min(left, _CHUNK_BYTES))
            left -= len(chunk)
            yield chunk
        self._exactly(_padded(size_bytes) - size_bytes)

    def _exactly(self, size_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < size_bytes:
            if not (chunk := self._source.read(size_bytes - len(data))):
                raise Integrity("the archive ends too early", hint=_HINT)
            data += chunk
        return bytes(data)


def _manifest_body(manifest: Manifest) -> bytes:
    facts = manifest.facts.model_copy(update={"skeleton": None})
    return manifest.model_copy(update={"facts": facts}).model_dump_json(indent=1).encode()


def _name(file: FileFact) -> str:
    return f"blobs/{check_digest(file.digest)}"


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def _member(name: str, size_bytes: int, body: Iterator[bytes]) -> Iterator[bytes]:
    head = tarfile.TarInfo(name)
    head.size, head.mode = size_bytes, _MODE
    yield head.tobuf(tarfile.GNU_FORMAT)  # sizes over 8 GiB in its base-256 form
    yield from body
    yield bytes(_padded(size_bytes) - size_bytes)


def _read_blob(layout: RepositoryLayout, file: FileFact) -> Iterator[bytes]:
    hasher = BlobHasher(file)
    with layout.blob(file.digest).open("rb") as stream:
        while chunk := stream.read(min(_CHUNK_BYTES, file.size - hasher.size_bytes + 1)):
            hasher.update(chunk)
            if hasher.size_bytes > file.size:
                break
            yield chunk
    if not hasher.matches:
        raise Integrity(f"{file.path} of {layout.repository} is not what the Hub's tree says")
