"""What the residency loop causes: hosts started, watched, drained and ended; one thread a host."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import structlog

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.database import Database, Transaction
from warmrack_store.errors import Defect, HostLost, Integrity, WarmrackError
from warmrack_store.ledgers import copies, nodes, tensors
from warmrack_store.machine import machine_id
from warmrack_store.resolution import Resolution
from warmrack_store.resolver.precision import name_backend
from warmrack_store.states import ResidentState
from warmrack_store.tensors import TensorLeaf
from warmrack_workers.decide import Seat
from warmrack_workers.devices.cpu import threads_per_device
from warmrack_workers.host_process import Nursery
from warmrack_workers.host_spec import ExpectedLeaf, HostSpec, SnapshotFiles, read_spec
from warmrack_workers.host_status import HostStatus
from warmrack_workers.orders import Event, HostEnded, Launched, Order, Seen
from warmrack_workers.processes import ProcessIdentity, kill, wait_end

log = structlog.get_logger()
START_SECONDS = 60.0
"""A spawned host imports torch before its socket is there; on a busy machine that takes a while."""
SILENCE_SECONDS = 120.0
"""A host that hangs is ended. Longer than a load may hold the interpreter's lock, during which it
does not answer either."""
_CONNECT_PAUSE_SECONDS = 0.01
_WATCH_SECONDS = 1.0
_STATUS_WAIT_SECONDS = 5.0
_REQUEST_SECONDS = 20.0
_GONE_SECONDS = 10.0
"""A killed process frees its memory within this; one that does not is stuck in the kernel."""


@dataclass(kw_only=True)
class _Host:
    """A host process as its watcher knows it."""

    seat_id: str
    socket: Path
    spec_path: Path
    identity: ProcessIdentity | None = None
    killed: threading.Event = field(default_factory=threading.Event)
    nudged: threading.Event = field(default_factory=threading.Event)


class HostEffects:
    """The real effects. `post` hands events to the loop."""

    def __init__(
        self,
        *,
        database: Database,
        nursery: Nursery,
        cache_dir: Path,
        runtime_dir: Path,
        epoch: int,
        threads: int | None,
        post: Callable[[Event], None],
    ) -> None:
        self._database = database
        self._nursery = nursery
        self._cache_dir = cache_dir
        self._runtime_dir = runtime_dir
        self._epoch = epoch
        self._threads = threads
        self._post = post
        self._hosts: dict[str, _Host] = {}

    def socket_of(self, seat_id: str) -> str:
        return str(self._runtime_dir / f"{seat_id}.sock")

    def find_socket(self, seat_id: str) -> str | None:
        """Of a host that is here; None for any other."""
        host = self._hosts.get(seat_id)
        return str(host.socket) if host is not None else None

    def start(self, seat: Seat, order: Order) -> None:
        host = _Host(
            seat_id=seat.id,
            socket=Path(self.socket_of(seat.id)),
            spec_path=self._runtime_dir / f"{seat.id}.json",
        )
        self._hosts[seat.id] = host
        self._thread(host, lambda: self._launch(host, seat, order))

    def drain(self, seat_id: str) -> None:
        host = self._hosts.get(seat_id)
        if host is not None:
            threading.Thread(target=self._ask_to_drain, args=(host,), daemon=True).start()

    def kill(self, seat_id: str) -> None:
        host = self._hosts.get(seat_id)
        if host is not None:
            self._kill(host)

    def stop_all(self, deadline_seconds: float) -> None:
        """Drain every host, then end those that are still there; for the agent's own end."""
        for seat_id in list(self._hosts):
            self.drain(seat_id)
        deadline = time.monotonic() + deadline_seconds
        while self._hosts and time.monotonic() < deadline:
            time.sleep(0.02)
        for host in list(self._hosts.values()):
            # First: without its spec, a host that is being launched ends as soon as it listens.
            host.spec_path.unlink(missing_ok=True)
            self._kill(host)

    def find_left_running(self) -> Iterator[tuple[HostSpec, HostStatus]]:
        """The hosts that an earlier agent started and that still answer; the rest is ended.

        Folders of loads that were killed are removed.
        """
        for view in self._runtime_dir.glob("view-*"):
            shutil.rmtree(view, ignore_errors=True)
        for spec_path in sorted(self._runtime_dir.glob("*.json")):
            try:
                spec = read_spec(spec_path)
            except Defect:  # of another version
                self.discard(spec_path.stem)
                continue
            status = _find_status(spec.socket_path)
            if status is None or status.state not in (ResidentState.WARM, ResidentState.DRAINING):
                self.discard(spec.resident_id)
            else:
                yield spec, status

    def discard(self, seat_id: str, known: ProcessIdentity | None = None) -> None:
        """End a host that nobody will adopt, and remove its files; `known` is what its row says.

        The spec goes first: a host that does not listen yet ends when it finds none, and one that
        listens says who it is.
        """
        socket = Path(self.socket_of(seat_id))
        (self._runtime_dir / f"{seat_id}.json").unlink(missing_ok=True)
        for identity in (known, _find_identity(socket)):
            if identity is not None and kill(identity):
                wait_end(identity, _GONE_SECONDS)
                log.info("A host is not adopted.", action="host-discarded", resident=seat_id)
        socket.unlink(missing_ok=True)

    def adopt(self, spec: HostSpec, status: HostStatus) -> None:
        """Watch a host that runs already."""
        host = _Host(
            seat_id=spec.resident_id,
            socket=spec.socket_path,
            spec_path=self._runtime_dir / f"{spec.resident_id}.json",
            identity=ProcessIdentity(pid=status.pid, start_time=status.start_time),
        )
        self._hosts[spec.resident_id] = host
        self._thread(host, lambda: self._watch(host))

    def _thread(self, host: _Host, work: Callable[[], None]) -> None:
        def run() -> None:
            error: WarmrackError | None = None
            try:
                work()
            except WarmrackError as failure:
                error = failure
            except Exception as failure:
                log.exception(
                    "A host's watcher failed.", action="host-defect", resident=host.seat_id
                )
                error = Defect(f"the host could not be started: {failure}")
            self._end(host)
            self._hosts.pop(host.seat_id, None)
            for path in (host.spec_path, host.socket):
                path.unlink(missing_ok=True)
            if error is None:
                host.spec_path.with_suffix(".log").unlink(missing_ok=True)
            self._post(HostEnded(seat_id=host.seat_id, error=error))

        threading.Thread(target=run, name=f"host-{host.seat_id[-6:]}", daemon=True).start()

    def _launch(self, host: _Host, seat: Seat, order: Order) -> None:
        spec = self._make_spec(host, seat, order)
        host.identity = self._nursery.launch(spec, host.spec_path)
        if host.killed.is_set():
            return
        self._post(Launched(seat_id=host.seat_id, identity=host.identity))
        self._watch(host)

    def _make_spec(self, host: _Host, seat: Seat, order: Order) -> HostSpec:
        resolution = order.resolution
        with self._database.read() as tx:
            model, *adapters = [self._read(tx, order.store, part) for part in resolution.parts]
            threads = self._threads or threads_per_device(
                nodes.count_devices(tx, "cpu", machine_id())
            )
        return HostSpec(
            resident_id=seat.id,
            epoch=self._epoch,
            model=resolution.asked,
            resolution=resolution,
            snapshot_dir=model.snapshot_dir,
            files=model.files,
            leaves=model.leaves,
            adapter=next(iter(adapters), None),
            device=seat.device,
            threads=threads,
            context_tokens=resolution.memory.context_tokens,
            socket_path=host.socket,
            log_path=self._runtime_dir / f"{seat.id}.log",
            backend=name_backend(resolution.quantization),
        )

    def _read(self, tx: Transaction, store: str, part: Resolution) -> SnapshotFiles:
        """What the fetch left of one repository. Raises HostLost, Integrity."""
        copy = copies.find_copy_of(tx, store, part)
        if copy is None or not copy.complete:
            raise HostLost(f"the copy of {part.repository} went away before its load")
        layout = RepositoryLayout(cache_dir=self._cache_dir, repository=part.repository)
        return SnapshotFiles(
            snapshot_dir=layout.snapshot(part.commit),
            files=copy.verified,
            leaves=_expected_leaves(
                part, {d: tensors.list_leaves(tx, d) for d in _weight_digests(part)}
            ),
        )

    def _watch(self, host: _Host) -> None:
        """Tell the loop what the host says, until its process is gone."""
        assert host.identity is not None
        heard_at = time.monotonic()
        state: str | None = None
        with _client(host.socket) as client:
            while not host.killed.is_set():
                params = {}
                if state not in (None, ResidentState.WARM):
                    params = {"after": state, "wait": f"{_STATUS_WAIT_SECONDS:g}"}
                status = _read_status(client, params)
                if status is None:
                    if wait_end(host.identity, _CONNECT_PAUSE_SECONDS):
                        return
                    patience = START_SECONDS if state is None else SILENCE_SECONDS
                    if time.monotonic() - heard_at > patience:
                        raise HostLost(f"the host has not answered for {patience:g} s")
                    continue
                state, heard_at = status.state, time.monotonic()
                self._post(Seen(seat_id=host.seat_id, status=status))
                if state == ResidentState.WARM:
                    host.nudged.wait(_WATCH_SECONDS)
                    host.nudged.clear()

    def _ask_to_drain(self, host: _Host) -> None:
        with suppress(httpx.HTTPError), _client(host.socket) as client:
            answer = client.post("/drain", json={"idle_seconds": 0})
            if answer.status_code == 200 and answer.json().get("draining"):
                host.nudged.set()
                return
        self._kill(host)  # it has nothing that could end by itself: it is still loading, or hangs

    def _kill(self, host: _Host) -> None:
        host.killed.set()
        host.nudged.set()
        if host.identity is not None:
            kill(host.identity)

    def _end(self, host: _Host) -> None:
        """Kill it and wait until its last thread has ended: before that it holds its memory, which
        the loop gives to the next one as soon as it hears of the end."""
        self._kill(host)
        while host.identity is not None and not wait_end(host.identity, _GONE_SECONDS):
            log.warning("A killed host does not end.", action="host-stuck", resident=host.seat_id)


def _client(socket: Path) -> httpx.Client:
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket)),
        base_url="http://host",
        timeout=_REQUEST_SECONDS,
        trust_env=False,
    )


def _read_status(client: httpx.Client, params: dict[str, str]) -> HostStatus | None:
    try:
        answer = client.get("/status", params=params)
    except httpx.HTTPError:
        return None
    return HostStatus.model_validate_json(answer.content) if answer.status_code == 200 else None


def _find_status(socket: Path) -> HostStatus | None:
    with _client(socket) as client:
        try:
            return _read_status(client, {})
        except (ValueError, json.JSONDecodeError):
            return None


def _find_identity(socket: Path) -> ProcessIdentity | None:
    """Who listens there, also where the rest of its status is of another version."""
    if not socket.exists():
        return None
    with _client(socket) as client:
        try:
            said = client.get("/status").json()
            return ProcessIdentity(pid=int(said["pid"]), start_time=int(said["start_time"]))
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None


def _weight_digests(resolution: Resolution) -> list[str]:
    return [file.digest for file in resolution.files if file.path in resolution.weights]


def _expected_leaves(
    resolution: Resolution, by_digest: Mapping[str, Sequence[TensorLeaf]]
) -> dict[str, ExpectedLeaf]:
    """All tensors of the checkpoint by name; Integrity where a file's leaves are not on record."""
    leaves: dict[str, ExpectedLeaf] = {}
    for file in resolution.files:
        if file.path not in resolution.weights or not file.path.endswith(".safetensors"):
            continue
        if not by_digest[file.digest]:
            raise Integrity(f"the tensors of {file.path} are not on record")
        for leaf in by_digest[file.digest]:
            leaves[leaf.name] = ExpectedLeaf(
                dtype=leaf.dtype, shape=leaf.shape, leaf=leaf.leaf, path=file.path
            )
    return leaves
