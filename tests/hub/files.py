"""The files of a repository, with the digests the Hub publishes for them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# The suffixes of the `.gitattributes` that the Hub writes into a new model repository.
LFS_SUFFIXES = frozenset(
    (
        *(".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".ftz", ".gguf", ".gz", ".h5", ".joblib"),
        *(".model", ".msgpack", ".npy", ".npz", ".onnx", ".ot", ".parquet", ".pb", ".pickle"),
        *(".pkl", ".pt", ".pth", ".safetensors", ".tar", ".tflite", ".tgz", ".wasm", ".xz"),
        *(".zip", ".zst"),
    )
)
# The Hub refuses a larger regular file, so it must be LFS whatever its name.
LARGEST_REGULAR_BYTES = 10 * 1024 * 1024
# Above this a file is served from where it is: a copy of real weights would cost more than it saves.
LARGEST_COPIED_BYTES = 16 * 1024 * 1024
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file of a commit; `blob_id` is git's sha1 (of the pointer when the file is LFS)."""

    path: str
    location: Path
    size_bytes: int
    blob_id: str
    sha256: str | None
    pointer_size_bytes: int | None

    @property
    def is_lfs(self) -> bool:
        return self.sha256 is not None

    @property
    def etag(self) -> str:
        """What names the content: sha256 of an LFS file, git-sha1 of a regular one."""
        return self.sha256 or self.blob_id


def is_lfs_path(path: str, size_bytes: int) -> bool:
    return Path(path).suffix.lower() in LFS_SUFFIXES or size_bytes > LARGEST_REGULAR_BYTES


def git_blob_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()


def store_file(source: Path, path: str, objects: Path) -> StoredFile:
    """A record of `source`; a file small enough is copied to `objects`, so later edits of the
    folder cannot change a commit. A larger one must be left alone by whoever owns the folder."""
    size_bytes = source.stat().st_size
    if size_bytes <= LARGEST_COPIED_BYTES:
        return store_bytes(source.read_bytes(), path, objects)
    with source.open("rb") as stream:
        return _lfs_file(path, source.resolve(), size_bytes, _sha256_of(stream))


def store_bytes(content: bytes, path: str, objects: Path) -> StoredFile:
    sha256 = hashlib.sha256(content).hexdigest()
    location = objects / sha256
    if not location.exists():
        partial = objects / f"{sha256}.{os.getpid()}.partial"
        partial.write_bytes(content)
        partial.rename(location)
    if is_lfs_path(path, len(content)):
        return _lfs_file(path, location, len(content), sha256)
    return StoredFile(
        path=path,
        location=location,
        size_bytes=len(content),
        blob_id=git_blob_sha1(content),
        sha256=None,
        pointer_size_bytes=None,
    )


def _lfs_file(path: str, location: Path, size_bytes: int, sha256: str) -> StoredFile:
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n"
    ).encode()
    return StoredFile(
        path=path,
        location=location,
        size_bytes=size_bytes,
        blob_id=git_blob_sha1(pointer),
        sha256=sha256,
        pointer_size_bytes=len(pointer),
    )


def _sha256_of(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := stream.read(_READ_BYTES):
        digest.update(block)
    return digest.hexdigest()
