"""One snapshot into the cache: every file verified, then visible as a whole."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from time import monotonic

from warmrack_store.cache.folders import make_folders
from warmrack_store.cache.layout import RepositoryLayout, check_commit
from warmrack_store.cache.publish import publish
from warmrack_store.cache.space import check_space, disk_full_as_refusal
from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.errors import Cancelled, Integrity, Timeout, UnsafeFormat
from warmrack_store.facts import FileFact
from warmrack_store.pieces import Piece, list_pieces
from warmrack_store.refs import check_file_path
from warmrack_store.tensors import TensorLeaf
from warmrack_workers.fetch.blob_fetch import BlobFetch
from warmrack_workers.fetch.crew import Crew
from warmrack_workers.fetch.leaves import hash_leaves
from warmrack_workers.fetch.line import Line
from warmrack_workers.fetch.patience import Patience
from warmrack_workers.fetch.pieces_known import PieceExchange
from warmrack_workers.fetch.sources import Source
from warmrack_workers.fetch.tally import FetchProgress, Tally

FILES_AT_ONCE = 4
_TICK_SECONDS = 0.1
"""How often progress is told, and `stop` and the clock are looked at."""
_LINGER_SECONDS = 0.5
"""How long a fetch that ends early waits for its threads. One that is making a connection (10 s at
most) or waits for the disk is left behind and ends by itself; all it may still do is finish a blob
whose bytes were verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPlan:
    """What is fetched where. Integrity where the paths or digests contradict each other."""

    cache_dir: Path
    repository: str
    commit: str
    ref: str | None = None
    """A branch or tag that means `commit`; written once the snapshot stands."""
    files: tuple[FileFact, ...]
    tree: tuple[FileFact, ...] = ()
    """All files at the commit. Its listing is written only where `files` covers it."""
    public: bool
    known: tuple[VerifiedFile, ...] = ()
    """Files hashed before, any path; a blob that is unchanged since is not read again."""
    leaves_known: frozenset[str] = frozenset()
    """Digests of safetensors files whose leaves the caller has."""

    def __post_init__(self) -> None:
        check_commit(self.commit)
        check_files(self.files)

    @property
    def layout(self) -> RepositoryLayout:
        return RepositoryLayout(cache_dir=self.cache_dir, repository=self.repository)

    @property
    def blobs(self) -> tuple[FileFact, ...]:
        """One file for each distinct digest, the largest first, so that none is left for the end."""
        distinct = {file.digest: file for file in self.files}
        return tuple(sorted(distinct.values(), key=lambda file: (-file.size, file.path)))

    def make_tally(self) -> Tally:
        return Tally(sum(file.size for file in self.blobs))

    @property
    def digests_to_leaf(self) -> frozenset[str]:
        """Files whose tensors are hashed one by one."""
        named = {file.digest for file in self.files if file.path.endswith(".safetensors")}
        return frozenset(named - self.leaves_known)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedSnapshot:
    snapshot_dir: Path
    files: tuple[VerifiedFile, ...]
    """In the order of the plan."""
    leaves: dict[str, tuple[TensorLeaf, ...]] = field(default_factory=dict)
    """By digest of the safetensors file."""
    hub_bytes: int
    """Body bytes that came over the wire, those sent in vain included."""
    peer_bytes: int = 0
    """The same, from peers."""
    local_bytes: int
    resumed_bytes: int


def fetch_snapshot(
    plan: FetchPlan,
    source: Source,
    *,
    on_progress: Callable[[FetchProgress], None],
    stop: Event,
    timeout_seconds: float | None = None,
    patience: Patience | None = None,
    tally: Tally | None = None,
    line: Line | None = None,
    rank: int = 0,
    peers: Sequence[Source] = (),
    exchange: PieceExchange | None = None,
    cut: Callable[[int], tuple[Piece, ...]] = list_pieces,
) -> FetchedSnapshot:
    """Bring `plan.files` into the cache and publish them; runs under the caller's claim.

    `peers` are asked before `source`, which alone has to be right. `line` is the node's, shared by
    its fetches; the one with the highest `rank` goes first.

    `on_progress` is called in this thread, some ten times a second, and may raise. Whatever ends
    the fetch early (`stop`: Cancelled within a second; the time: Timeout; an error of a file),
    nothing new is visible, what has arrived is kept for the next try, and the sources are
    interrupted; `tally` has counted until then.
    Raises DiskFull before the first byte, Integrity for bytes that are not the tree's, UnsafeFormat
    for a malformed safetensors file, RateLimited while the Hub wants to be left alone for longer
    than `patience` waits, and the source's own errors once patience ends.
    """
    check_space(plan.cache_dir, _need_bytes(plan.layout, plan.blobs))
    line, tally = line or Line(), tally or plan.make_tally()
    before_bytes, peers_before = source.received_bytes, _sum_received(peers)
    with disk_full_as_refusal(plan.cache_dir):
        make_folders(plan.layout, public=plan.public)
        with line.entered(rank):
            crew = Crew(
                sources=(*peers, source),
                patience=patience or Patience(),
                halt=Event(),
                tally=tally,
                line=line,
                rank=rank,
                exchange=exchange or PieceExchange(),
            )
            blobs = BlobFetch(layout=plan.layout, crew=crew, public=plan.public, cut=cut)
            fetched = _Work(plan=plan, blobs=blobs).run(on_progress, stop, timeout_seconds)
        snapshot_dir = _publish(plan)
    return FetchedSnapshot(
        snapshot_dir=snapshot_dir,
        files=tuple(replace(fetched[file.digest].file, path=file.path) for file in plan.files),
        leaves={digest: blob.leaves for digest, blob in fetched.items() if blob.leaves is not None},
        hub_bytes=source.received_bytes - before_bytes,
        peer_bytes=_sum_received(peers) - peers_before,
        local_bytes=tally.local_bytes,
        resumed_bytes=tally.resumed_bytes,
    )


def _publish(plan: FetchPlan) -> Path:
    return publish(
        plan.layout,
        commit=plan.commit,
        files=plan.files,
        public=plan.public,
        tree=plan.tree,
        ref=plan.ref,
    )


def check_files(files: Iterable[FileFact]) -> None:
    """Integrity where two files cannot stand in one folder, or one digest has two sizes."""
    sizes: dict[str, int] = {}
    paths: set[str] = set()
    parents: set[str] = set()
    for file in files:
        path = check_file_path(file.path)
        if path in paths or path in parents:
            raise Integrity(f"the tree names {path} twice")
        paths.add(path)
        parts = path.split("/")
        parents.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        if sizes.setdefault(file.digest, file.size) != file.size:
            raise Integrity(f"the tree gives {path} another size than a file of the same digest")
    if clash := paths & parents:
        raise Integrity(f"the tree has a file and a folder named {min(clash)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _FetchedBlob:
    file: VerifiedFile
    leaves: tuple[TensorLeaf, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The threads of one fetch, and the one that watches them."""

    plan: FetchPlan
    blobs: BlobFetch

    @property
    def crew(self) -> Crew:
        return self.blobs.crew

    def run(
        self,
        on_progress: Callable[[FetchProgress], None],
        stop: Event,
        timeout_seconds: float | None,
    ) -> dict[str, _FetchedBlob]:
        """Every blob by digest, or the first error."""
        known = {record.digest: record for record in self.plan.known}
        pool = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="fetch")
        futures = {
            file.digest: pool.submit(self._fetch, file, known.get(file.digest))
            for file in self.plan.blobs
        }
        try:
            self.crew.look()
            self._watch(set(futures.values()), on_progress, stop, timeout_seconds)
        except BaseException:
            self.crew.halt.set()
            for source in self.crew.sources:
                source.interrupt()
            self.crew.end(_LINGER_SECONDS)
            pool.shutdown(wait=False, cancel_futures=True)
            started = [future for future in futures.values() if not future.cancelled()]
            wait(started, timeout=_LINGER_SECONDS)
            raise
        self.crew.end(_LINGER_SECONDS)
        self._tell_pieces()
        pool.shutdown()
        return {digest: future.result() for digest, future in futures.items()}

    def _watch(
        self,
        pending: set[Future[_FetchedBlob]],
        on_progress: Callable[[FetchProgress], None],
        stop: Event,
        timeout_seconds: float | None,
    ) -> None:
        started = monotonic()
        while pending:
            done, pending = wait(pending, timeout=_TICK_SECONDS, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            if stop.is_set():
                raise Cancelled(f"the fetch of {self.plan.repository} was stopped")
            if timeout_seconds is not None and monotonic() - started > timeout_seconds:
                raise Timeout(f"{self.plan.repository} was not here after {timeout_seconds:g} s")
            self.crew.look()
            self._tell_pieces()
            on_progress(self.crew.tally.progress)

    def _tell_pieces(self) -> None:
        """Pass on which pieces the Hub gave since the last time."""
        if (tell := self.crew.exchange.on_pieces) is not None:
            for digest, pieces in self.crew.take_news().items():
                tell(digest, pieces)

    def _fetch(self, file: FileFact, known: VerifiedFile | None) -> _FetchedBlob:
        verified = self.blobs.fetch(file, known)
        if file.digest not in self.plan.digests_to_leaf:
            return _FetchedBlob(file=verified, leaves=None)
        try:
            leaves = hash_leaves(self.blobs.layout.blob(file.digest), self.crew.halt)
        except UnsafeFormat as error:
            raise UnsafeFormat(f"{file.path}: {error.message}", hint=error.hint) from error
        return _FetchedBlob(file=verified, leaves=leaves)


def _sum_received(sources: Iterable[Source]) -> int:
    return sum(source.received_bytes for source in sources)


def _need_bytes(layout: RepositoryLayout, files: Iterable[FileFact]) -> int:
    """Bytes that have no room on the disk yet, neither in a blob nor in a part."""
    return sum(
        max(0, file.size - _allocated_bytes(layout.part(file.digest)))
        for file in files
        if not layout.blob(file.digest).exists()
    )


def _allocated_bytes(location: Path) -> int:
    return location.stat().st_blocks * 512 if location.exists() else 0
