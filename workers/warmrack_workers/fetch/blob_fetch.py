"""One blob: what is here already, else from the sources, verified before anybody can see it."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from blake3 import blake3

from warmrack_store.cache.folders import file_mode, sync_folder
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.locks import blob_lock
from warmrack_store.cache.quarantine import quarantine
from warmrack_store.cache.snapshots import is_inside
from warmrack_store.cache.space import disk_full_as_refusal
from warmrack_store.cache.verified import BlobHasher, VerifiedFile, find_verified
from warmrack_store.errors import Cancelled, Integrity
from warmrack_store.facts import FileFact
from warmrack_store.pieces import Piece, list_pieces
from warmrack_workers.fetch.crew import Crew
from warmrack_workers.fetch.journal import Journal
from warmrack_workers.fetch.part import Arrived, Part, PieceState
from warmrack_workers.fetch.tally import Tally

_WAIT_SECONDS = 0.25
_SYNC_BYTES = 2**26
"""The disk is made to begin after each so many bytes, rather than with all of them at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobFetch:
    """What all blobs of one snapshot's fetch share; `fetch` is called from several threads."""

    layout: RepositoryLayout
    crew: Crew
    public: bool
    cut: Callable[[int], tuple[Piece, ...]] = list_pieces

    @property
    def halt(self) -> Event:
        return self.crew.halt

    @property
    def tally(self) -> Tally:
        return self.crew.tally

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
        pieces = self.cut(file.size)
        journal = Journal(self.layout.journal(file.digest), pieces)
        part = Part(file, self.layout.part(file.digest), journal, pieces, self.crew.changed)
        try:
            self.tally.add_resumed(part.kept_bytes)
            part.allocate()
            self.crew.add(part)
            try:
                hasher = self._follow_twice(part)
            except Integrity:
                part.remove()
                raise
            finally:
                self.crew.remove(part)
            seen = part.publish(self.layout.blob(file.digest), file_mode(public=self.public))
            sync_folder(self.layout.blobs)
            return hasher.verified(seen)
        finally:
            part.close()

    def _follow_twice(self, part: Part) -> BlobHasher:
        """Once more where the bytes are wrong: one may flip on the way, and a peer may lie. Twice
        wrong is the Hub's fault."""
        hasher = self._follow(part)
        if not hasher.matches:
            self._want_again(part)
            hasher = self._follow(part)
        if not hasher.matches:
            file = part.file
            raise Integrity(
                f"{file.path}: its digest is {hasher.digest}, the tree says {file.digest}"
            )
        return hasher

    def _want_again(self, part: Part) -> None:
        """Drop what peers brought that the Hub's reader saw otherwise, and name them; all that
        peers brought where no such piece is known; everything where all of it came from the Hub."""
        peers = {source.name for source in self.crew.sources if source.is_peer}
        theirs = [one for one in part.arrived.values() if one.source in peers]
        wrong = [one for one in theirs if self._is_known_wrong(part, one)]
        for name in sorted({one.source for one in wrong}):
            self.crew.name_liar(name, f"{part.file.path}: pieces are not the Hub's")
        part.trusts_peers = False
        dropped = [one.index for one in wrong or theirs] or range(len(part.pieces))
        for index in dropped:
            self.tally.add_received(-part.pieces[index].size_bytes)
            part.reopen(index)

    def _is_known_wrong(self, part: Part, arrived: Arrived) -> bool:
        find_piece = self.crew.exchange.find_piece
        known = find_piece(part.file.digest, arrived.index) if find_piece is not None else None
        return known not in (None, arrived.blake3)

    def _follow(self, part: Part) -> BlobHasher:
        """The hash of the whole file, piece by piece as they come; the disk follows too."""
        hasher = BlobHasher(part.file)
        syncs: list[Future[None]] = []
        with ThreadPoolExecutor(1, thread_name_prefix="fetch_sync") as disk:
            for piece in part.pieces:
                while (read := self._read_piece(part, piece, hasher)) is None:
                    continue
                hasher = read
                if piece.end // _SYNC_BYTES > piece.start // _SYNC_BYTES:
                    syncs.append(disk.submit(part.sync))
        for sync in syncs:
            sync.result()  # the kernel tells of a failed write once, so it must be heard
        return hasher

    def _read_piece(self, part: Part, piece: Piece, before: BlobHasher) -> BlobHasher | None:
        """The hash with this piece; None where an earlier fetch left it and it is not what the
        journal says: it is fetched again."""
        state = self._wait_for(part, piece.index)
        self._stop_if_halted(part.file)
        if state is PieceState.HERE:
            part.read(piece.start, piece.end, before.update)
            return before
        hasher, seen = before.copy(), blake3()

        def on_block(view: memoryview) -> None:
            seen.update(view)
            hasher.update(view)

        part.read(piece.start, piece.end, on_block)
        if seen.hexdigest() == part.kept_mark(piece.index).blake3:
            part.accept(piece.index)
            return hasher
        self.tally.add_resumed(-piece.size_bytes)
        part.reopen(piece.index)
        return None

    def _wait_for(self, part: Part, index: int) -> PieceState:
        """Once the piece is here or kept; raises what a connection met."""
        with self.crew.changed:
            while (state := part.state(index)) < PieceState.KEPT:
                if part.error is not None:
                    raise part.error
                self._stop_if_halted(part.file)
                self.crew.changed.wait(_WAIT_SECONDS)
            return state

    def _stop_if_halted(self, file: FileFact) -> None:
        if self.halt.is_set():
            raise Cancelled(f"stopped while fetching {file.path}")
