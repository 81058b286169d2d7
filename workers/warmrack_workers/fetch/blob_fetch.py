"""One blob: what is here already, else from the source, verified before anybody can see it."""

import io
import os
import random
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from warmrack_store.cache.folders import file_mode, sync_folder
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.locks import blob_lock
from warmrack_store.cache.quarantine import quarantine
from warmrack_store.cache.snapshots import is_inside
from warmrack_store.cache.space import disk_full_as_refusal
from warmrack_store.cache.verified import BlobHasher, VerifiedFile, find_verified, hash_stream
from warmrack_store.errors import Cancelled, HubUnavailable, Integrity, Transient
from warmrack_store.facts import FileFact
from warmrack_workers.fetch.patience import Patience
from warmrack_workers.fetch.sources import Source
from warmrack_workers.fetch.tally import Tally

_WRITE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobFetch:
    """What all blobs of one snapshot's fetch share; `fetch` is called from several threads."""

    layout: RepositoryLayout
    source: Source
    public: bool
    patience: Patience
    halt: Event
    tally: Tally

    def fetch(self, file: FileFact, known: VerifiedFile | None) -> VerifiedFile:
        """Bring the blob of `file` into `blobs/`; Cancelled soon after `halt` is set.

        What has arrived stays in the work folder, also after `kill -9`, and the next call goes on
        from there. `known` spares hashing a blob that is unchanged since.
        """
        if known is not None and known.is_unchanged(self.layout.blob(file.digest)):
            self.tally.add_local(file.size)
            return known
        with (
            blob_lock(self.layout, file.digest, self.halt),
            disk_full_as_refusal(self.layout.cache_dir),
        ):
            return self._find_local(file) or self._download(file)

    def _find_local(self, file: FileFact) -> VerifiedFile | None:
        """The blob that is here, hashed; a wrong one is moved aside, never changed in place."""
        blob = self.layout.blob(file.digest)
        if not os.path.lexists(blob):
            return None
        if not is_inside(self.layout, blob):
            raise Integrity(
                f"the blob {blob} of {file.path} is a link out of the cache",
                hint="Such links are refused; remove it, or move the whole cache instead.",
            )
        verified = self._hash_local(blob, file) if blob.is_file() else None
        if verified is None:
            quarantine(self.layout, blob)
        return verified

    def _hash_local(self, blob: Path, file: FileFact) -> VerifiedFile | None:
        counted_bytes = 0

        def on_read(size_bytes: int) -> None:
            nonlocal counted_bytes
            counted_bytes += size_bytes
            self.tally.add_local(size_bytes)
            self._stop_if_halted(file)

        verified = find_verified(blob, file, on_read)
        if verified is None:
            self.tally.add_local(-counted_bytes)
        return verified

    def _download(self, file: FileFact) -> VerifiedFile:
        """Once more from the first byte where the bytes are wrong: a part may be of a crash, a
        byte may flip on the way. Twice wrong is the source's fault."""
        try:
            return self._attempt(file)
        except Integrity:
            return self._attempt(file)

    def _attempt(self, file: FileFact) -> VerifiedFile:
        part = self.layout.part(file.digest)
        hasher = BlobHasher(file)
        with io.BufferedRandom(io.FileIO(part, "r+", opener=_open_part), _WRITE_BYTES) as stream:
            self._resume(stream, hasher)
            resumed_bytes = hasher.size_bytes
            try:
                self._pull(stream, hasher)
                stream.flush()
                _check(hasher, os.fstat(stream.fileno()).st_size)
            except Integrity:
                part.unlink()
                self.tally.add_resumed(-resumed_bytes)
                self.tally.add_received(resumed_bytes - hasher.size_bytes)
                raise
            os.fchmod(stream.fileno(), file_mode(public=self.public))
            os.fsync(stream.fileno())
            part.rename(self.layout.blob(file.digest))
            sync_folder(self.layout.blobs)
            return hasher.verified(os.fstat(stream.fileno()))

    def _resume(self, stream: io.BufferedRandom, hasher: BlobHasher) -> None:
        """Hash what an earlier fetch left, and stand at its end."""
        if os.fstat(stream.fileno()).st_size > hasher.file.size:
            stream.truncate(0)

        def on_read(size_bytes: int) -> None:
            self.tally.add_resumed(size_bytes)
            self._stop_if_halted(hasher.file)

        hash_stream(stream, hasher, on_read)

    def _pull(self, stream: io.BufferedRandom, hasher: BlobHasher) -> None:
        """Receive until the size is reached, through as many failures as `patience` allows."""
        tries = 0
        while hasher.size_bytes < hasher.file.size:
            self._stop_if_halted(hasher.file)
            before = hasher.size_bytes
            try:
                self._receive(stream, hasher)
            except Transient as error:
                self._stop_if_halted(hasher.file)
                tries = 1 if hasher.size_bytes > before else tries + 1
                delay = self.patience.find_delay_seconds(
                    tries, error.retry_after_seconds, random.random()
                )
                if delay is None:
                    raise
                self.halt.wait(delay)

    def _receive(self, stream: io.BufferedRandom, hasher: BlobHasher) -> None:
        file = hasher.file
        with self.source.open(file, hasher.size_bytes, file.size) as chunks:
            for chunk in chunks:
                self._stop_if_halted(file)
                if hasher.size_bytes + len(chunk) > file.size:
                    raise Integrity(
                        f"{file.path}: {self.source.name} sends more than the {file.size} bytes "
                        "that the tree says"
                    )
                stream.write(chunk)
                hasher.update(chunk)
                self.tally.add_received(len(chunk))
        if hasher.size_bytes < file.size:
            raise HubUnavailable(
                f"{file.path}: {self.source.name} stopped after {hasher.size_bytes} of "
                f"{file.size} bytes"
            )

    def _stop_if_halted(self, file: FileFact) -> None:
        if self.halt.is_set():
            raise Cancelled(f"stopped while fetching {file.path}")


def _open_part(path: str, _flags: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _check(hasher: BlobHasher, disk_bytes: int) -> None:
    """Integrity where the bytes are others than the tree says, or the part has others still."""
    file = hasher.file
    if not hasher.matches:
        raise Integrity(f"{file.path}: its digest is {hasher.digest}, the tree says {file.digest}")
    if disk_bytes != file.size:
        raise Integrity(f"{file.path}: {disk_bytes} bytes on disk, the tree says {file.size}")
