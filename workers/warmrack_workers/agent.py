"""The node agent: what one machine runs besides its hosts.

Threads: Celery's pool hears bells and works on jobs; `heart` renews leases, beats for the node
and hears cancels; `residency` owns what is in memory; a thread watches each host. The order of
the end: no new claims, running jobs go back to the queue, hosts drain and end, the node says
goodbye; at its deadline the process exits whatever still runs, since a threads pool cannot be
stopped while a task runs.
"""

import hashlib
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import structlog

from warmrack_store.brokers.celery_doorbell import CeleryDoorbell, run_bell_worker
from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.cache.identity import store_identity
from warmrack_store.cache_evictions import Eviction, EvictionQuestion
from warmrack_store.database import Database
from warmrack_store.errors import BadRequest, StoreUnavailable
from warmrack_store.hub import HubFacts
from warmrack_store.hub_budget import SharedBudget
from warmrack_store.ledgers import claims, nodes
from warmrack_store.machine import machine_id
from warmrack_store.named_folders import make_named_folder
from warmrack_store.rechecks import DiskCheck, DiskQuestion
from warmrack_store.records import parse_record
from warmrack_store.rights import Belief, Rights
from warmrack_store.settings import Settings
from warmrack_store.vault import open_vault
from warmrack_workers.activity import Activities, Stopping
from warmrack_workers.adoption import adopt_hosts
from warmrack_workers.content_answers import ContentAnswers
from warmrack_workers.devices import list_devices
from warmrack_workers.devices.held import held_bytes
from warmrack_workers.disk_checks import DiskChecks
from warmrack_workers.effects import HostEffects
from warmrack_workers.fetch.arriving import Arriving
from warmrack_workers.fetch.exchange import PeerAccess
from warmrack_workers.heart import Heart
from warmrack_workers.host_process import Nursery
from warmrack_workers.ingress import Ingress
from warmrack_workers.loads import Loads
from warmrack_workers.mirror.opening import open_mirror
from warmrack_workers.node_server import SEAT, NodeServer
from warmrack_workers.orders import Nudge
from warmrack_workers.pipeline import Parts, Pipeline
from warmrack_workers.residency import Residency
from warmrack_workers.snapshots import Snapshots
from warmrack_workers.store_budget import StoreBudget
from warmrack_workers.store_tidying import StoreTidying
from warmrack_workers.task_schemas import list_schemas
from warmrack_workers.vital_threads import end_with_vital_threads

log = structlog.get_logger()
_BELL_THREADS = 16
"""Jobs at once: most of them wait, for bytes or for a load, and cost little while they do."""
_STOP_JOBS_SECONDS = 3.0
_STOP_HOSTS_SECONDS = 5.0
_EXIT_SECONDS = 10.0
_LIBRARIES = ("warmrack", "torch", "transformers", "huggingface_hub", "safetensors")


class Agent:
    """One node, from its registration to its goodbye."""

    def __init__(self, settings: Settings) -> None:
        """Raises BadRequest where the settings name no broker, no cluster key or no devices."""
        if settings.broker_url is None or settings.cluster_key_file is None:
            raise BadRequest("WARMRACK_BROKER_URL and WARMRACK_CLUSTER_KEY_FILE are not set")
        self._settings = settings
        self._node = settings.node
        self._holder = f"{settings.node}:{secrets.token_hex(6)}"
        self._database = Database(settings.effective_database_url)
        self._devices = list_devices(settings.devices, held_bytes(self._database, self._node))
        self._doorbell = CeleryDoorbell(settings.broker_url)
        self._wakeups = Wakeups(settings.broker_url)
        self._broker_url = settings.broker_url
        self._activities = Activities()
        self._stopping = threading.Event()
        make_named_folder(settings.cache_dir, "cache_dir")
        self._store = store_identity(settings.cache_dir)
        self._runtime_dir = _runtime_dir(settings)
        self._versions = {name: metadata.version(name) for name in _LIBRARIES}
        self._nursery = Nursery(self._runtime_dir / "nursery.log")
        contents = ContentAnswers.of(
            database=self._database,
            cache_dir=settings.cache_dir,
            node=self._node,
            store=self._store,
            lease_seconds=settings.lease_seconds,
        )
        self._budget = StoreBudget(
            settings=settings, database=self._database, node=self._node, store=self._store
        )
        self._tidying = StoreTidying(self._budget)
        self._node_server = NodeServer(
            self._runtime_dir / "node.sock",
            {
                "/snapshots/verify": self._verify_snapshot,
                "/disk/evict": self._evict,
                "/disk/tidy": lambda _: self._tidying.tidy(),
                **contents.questions,
            },
            contents.uploads,
        )
        self._node_server.start()
        self._vault = open_vault(settings)
        self._hub = HubFacts(
            settings.hub_endpoint,
            allowed_hosts=settings.hub_endpoints_allowed,
            budget=SharedBudget(self._database, settings.hub_endpoint),
        )
        self._rights = Rights(
            database=self._database, hub=self._hub, vault=self._vault, belief=Belief.of(settings)
        )
        self._ingress = Ingress(
            settings.ingress, node_token=self._vault.node_token, find_socket=self._find_socket
        )
        listening = self._ingress.start()
        self._arriving = Arriving()
        self._mirror = open_mirror(
            settings=settings,
            database=self._database,
            rights=self._rights,
            doorbell=self._doorbell,
            vault=self._vault,
            store=self._store,
            arriving=self._arriving,
        )
        self._epoch = self._register(settings.ingress_url or listening)
        self._residency = Residency(
            database=self._database,
            node=self._node,
            epoch=self._epoch,
            budgets={device.name: device.budget_bytes for device in self._devices},
            policy=settings.eviction,
        )
        self._effects = HostEffects(
            database=self._database,
            nursery=self._nursery,
            cache_dir=settings.cache_dir,
            runtime_dir=self._runtime_dir,
            epoch=self._epoch,
            threads=settings.threads,
            post=self._residency.post,
        )
        self._pipeline = self._make_pipeline()
        self._heart = Heart(
            database=self._database,
            node=self._node,
            epoch=self._epoch,
            holder=self._holder,
            lease_seconds=settings.lease_seconds,
            activities=self._activities,
            on_taken=self._on_taken,
        )

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; does not return, the process exits."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        end_with_vital_threads()
        self._nursery.start()
        left = adopt_hosts(self._database, self._effects, node=self._node)
        self._residency.adopt(self._effects, left)
        self._residency.start()
        self._heart.start()
        self._tidying.start()
        threading.Thread(
            target=self._wakeups.listen, args=(self._heard, self._stopping), daemon=True
        ).start()
        threading.Thread(target=self._work, name="first-look", daemon=True).start()
        run_bell_worker(
            self._broker_url,
            node=self._node,
            on_bell=self._work,
            threads=_BELL_THREADS,
        )
        self._shut_down()  # the worker has ended by itself: so does the agent

    def _verify_snapshot(self, question: object) -> DiskCheck:
        checks = DiskChecks(
            database=self._database,
            cache_dir=self._settings.cache_dir,
            node=self._node,
            store=self._store,
        )
        return checks.check(parse_record(DiskQuestion, question).resolution_id)

    def _evict(self, question: object) -> Eviction:
        return self._budget.evict(parse_record(EvictionQuestion, question))

    def _find_socket(self, seat_id: str) -> str | None:
        if seat_id == SEAT:
            return str(self._node_server.socket_path)
        return self._effects.find_socket(seat_id)

    def _register(self, url: str) -> int:
        devices = [
            {"name": d.name, "kind": d.kind, "budget_bytes": d.budget_bytes} for d in self._devices
        ]
        with self._database.write() as tx:
            return nodes.register(
                tx,
                self._node,
                url=url,
                mirror_url=self._settings.mirror_url or self._mirror.url,
                machine=machine_id(),
                store=self._store,
                devices=devices,
                labels={},
                tasks=list_schemas(),
                versions=self._versions,
                pid=os.getpid(),
            )

    def _make_pipeline(self) -> Pipeline:
        settings = self._settings
        return Pipeline(
            Parts(
                node=self._node,
                database=self._database,
                hub=self._hub,
                vault=self._vault,
                rights=self._rights,
                doorbell=self._doorbell,
                wakeups=self._wakeups,
                loads=Loads(
                    database=self._database,
                    residency=self._residency,
                    keep_alive=settings.keep_alive,
                    store=self._store,
                ),
                snapshots=Snapshots(
                    settings=settings,
                    database=self._database,
                    wakeups=self._wakeups,
                    node=self._node,
                    store=self._store,
                    peers=PeerAccess(arriving=self._arriving, node_token=self._vault.node_token),
                ),
                activities=self._activities,
                versions=self._versions,
            )
        )

    def _work(self) -> None:
        """Claim and run jobs until there is none for this node."""
        while not self._stopping.is_set():
            try:
                with self._database.write() as tx:
                    found = claims.claim_next(
                        tx,
                        node=self._node,
                        holder=self._holder,
                        lease_seconds=self._settings.lease_seconds,
                    )
            except StoreUnavailable as error:
                log.warning("No job can be claimed.", action="claim-wait", error=error.message)
                return  # the reconciler rings again
            if found is None:
                return
            self._pipeline.run(*found)

    def _heard(self, subject: str) -> None:
        if subject == f"node:{self._node}":
            self._residency.post(Nudge())

    def _on_signal(self, number: int, frame: Any) -> None:
        self._begin_to_stop(self._shut_down)

    def _on_taken(self) -> None:
        self._begin_to_stop(self._make_way)

    def _begin_to_stop(self, way: Callable[[], None]) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            threading.Thread(target=way, name="shutdown", daemon=True).start()

    def _shut_down(self) -> None:
        self._stop_jobs()
        self._effects.stop_all(_STOP_HOSTS_SECONDS)
        self._residency.stop()
        self._heart.stop()
        self._nursery.stop()
        self._say_goodbye()
        os._exit(0)

    def _make_way(self) -> None:
        """End for another agent with this node's name. On this machine it has adopted the hosts,
        so they are left to it; the rows are its in any case."""
        self._stop_jobs()
        self._residency.stop()
        if not self._is_adopted():
            self._effects.stop_all(_STOP_HOSTS_SECONDS)
        self._nursery.stop()
        os._exit(1)

    def _is_adopted(self) -> bool:
        try:
            with self._database.read() as tx:
                node = nodes.find_node(tx, self._node)
        except StoreUnavailable:
            return True
        return node is not None and node.machine == machine_id()

    def _stop_jobs(self) -> None:
        last = threading.Timer(_EXIT_SECONDS, os._exit, args=(1,))
        last.daemon = True
        last.start()
        for activity in self._activities.list():
            activity.end(Stopping())
        deadline = time.monotonic() + _STOP_JOBS_SECONDS
        while self._activities.list() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _say_goodbye(self) -> None:
        try:
            with self._database.write() as tx:
                nodes.say_goodbye(tx, self._node, self._epoch)
        except StoreUnavailable as error:
            log.warning("Nobody heard the goodbye.", action="goodbye", error=error.message)


def _runtime_dir(settings: Settings) -> Path:
    """A short folder for sockets, the same for each start of this node; only its owner enters.

    A unix socket's path ends at 107 bytes, so it cannot be below any state directory.
    """
    name = f"{settings.state_dir.absolute()}|{settings.node}|{settings.effective_database_url}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = base / f"warmrack-{os.getuid()}" / digest
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid != os.getuid():
            raise BadRequest(f"{path} belongs to somebody else", hint="Set XDG_RUNTIME_DIR.")
    return folder
