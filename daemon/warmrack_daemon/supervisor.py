"""`warmrack up`: every part of the real stack on one machine, as children of one process.

Order of the start: broker, control plane, nodes; of the stop: nodes (they drain and end their
hosts), control plane, broker, so that whoever writes last still finds what it writes to. A child
that dies is started again. What an `up` that was killed left behind is found by a mark in its
environment and ended, except model hosts, which the new agents adopt.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx
import psutil
import redis

from warmrack_daemon.embedded_broker import EmbeddedBroker
from warmrack_store.database import Database, migrate
from warmrack_store.errors import AlreadyRunning, Defect
from warmrack_store.ledgers import nodes
from warmrack_store.settings import Settings
from warmrack_store.states import NodeState
from warmrack_store.vault import ensure_key_file

_MARK = "_WARMRACK_UP"
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_STOP_SECONDS = {"node": 12.0, "control": 5.0, "broker": 2.0}
"""Adds up to less than the 20 s after which a service manager kills."""
_RESTART_SECONDS = (0.2, 1.0, 5.0)
_STEADY_SECONDS = 30.0
_HOST_MODULE = "warmrack_workers.nursery"


@dataclass(kw_only=True)
class _Child:
    """One part of the stack and the process that is it at the moment."""

    name: str
    role: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float = 0.0
    exit_codes: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0


def run_up(settings: Settings, host: str, port: int, node_count: int) -> None:
    """Run the stack in the foreground until SIGTERM or SIGINT.

    Prints one line of JSON when it is ready. Raises AlreadyRunning where another one has the
    state directory.
    """
    state_dir = settings.state_dir.expanduser().absolute()
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(state_dir):
        _sweep(state_dir)
        ensure_key_file(settings.cluster_key_file or state_dir / "cluster.key")
        migrate(settings.model_copy(update={"state_dir": state_dir}).effective_database_url)
        stack = _Stack(settings, state_dir, host, port, node_count)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            stack.start(stop)
            if not stop.is_set():
                print(json.dumps(stack.ready_line()), flush=True)
            stack.watch(stop)
        finally:
            stack.stop()


class _only_one:
    """Holds the state directory; the kernel lets go of it however the process ends."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "up.lock"
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"another `warmrack up` runs on {self._path.parent}",
            ) from error

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _sweep(state_dir: Path) -> None:
    """End what an earlier `up` on this directory left, and wait until it is gone."""
    left = list(_left_over(state_dir))
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)


def _left_over(state_dir: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            mine = process.environ().get(_MARK) == str(state_dir)
            if mine and process.pid != os.getpid() and _HOST_MODULE not in process.cmdline():
                yield process
        except psutil.Error:
            continue


class _Stack:
    """The children, in the order of their start."""

    def __init__(
        self, settings: Settings, state_dir: Path, host: str, port: int, node_count: int
    ) -> None:
        self._state_dir = state_dir
        self._host = host
        self._port = port
        self._broker = None if settings.broker_url else EmbeddedBroker(state_dir)
        self.broker_url = settings.broker_url or (self._broker.url if self._broker else "")
        self._settings = settings
        self._environment = self._shared_environment(settings)
        names = [f"node-{index}" for index in range(node_count)]
        self.node_names = names
        self._children = [*self._core_children(), *(self._node_child(name) for name in names)]

    def _shared_environment(self, settings: Settings) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("WARMRACK_") or name == "WARMRACK_CONFIG"
        }
        ours = {
            "STATE_DIR": self._state_dir,
            "DATABASE_URL": settings.model_copy(
                update={"state_dir": self._state_dir}
            ).effective_database_url,
            "BROKER_URL": self.broker_url,
            "CLUSTER_KEY_FILE": settings.cluster_key_file or self._state_dir / "cluster.key",
            "HUB_ENDPOINT": settings.hub_endpoint,
            "HUB_ENDPOINTS_ALLOWED": ",".join(settings.hub_endpoints_allowed),
            "CACHE_DIR": settings.cache_dir,
            "DEVICES": settings.devices,
            "LEASE_SECONDS": settings.lease_seconds,
            "ON_DEMAND": settings.on_demand,
            "PATIENCE_SECONDS": settings.patience_seconds,
            "KEEP_ALIVE": settings.keep_alive,
            "MAX_QUEUED": settings.max_queued,
            "LOG": settings.log.value,
            "THREADS": settings.threads,
            "CACHE_QUOTA": settings.cache_quota,
            "RESULT_BACKEND": settings.result_backend,
            "INTAKE_TENANT": settings.intake_tenant,
        }
        named = {f"WARMRACK_{name}": str(v) for name, v in ours.items() if v is not None}
        return {**kept, **named, _MARK: str(self._state_dir)}

    def _core_children(self) -> list[_Child]:
        children = []
        if self._broker is not None:
            command = self._broker.command()
            children.append(self._child("broker", "broker", command))
        serve = [sys.executable, "-m", "warmrack_daemon", "serve"]
        serve += ["--host", self._host, "--port", str(self._port)]
        return [*children, self._child("control", "control", serve)]

    def _node_child(self, name: str) -> _Child:
        child = self._child(name, "node", [sys.executable, "-m", "warmrack_workers"])
        child.environment["WARMRACK_NODE"] = name
        if name != "node-0":
            child.environment["WARMRACK_CACHE_DIR"] = str(self._state_dir / "nodes" / name / "hub")
        return child

    def _child(self, name: str, role: str, command: list[str]) -> _Child:
        return _Child(name=name, role=role, command=command, environment=dict(self._environment))

    @property
    def url(self) -> str:
        shown = "127.0.0.1" if self._host in {"0.0.0.0", "::", ""} else self._host
        return f"http://{shown}:{self._port}"

    def ready_line(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "state_dir": str(self._state_dir),
            "nodes": self.node_names,
            "broker_url": self.broker_url,
            "pids": {child.name: child.pid for child in self._children},
        }

    def start(self, stop: threading.Event) -> None:
        """Start all parts and wait until the API answers and every node lives."""
        begun = time.time()
        deadline = time.monotonic() + _READY_SECONDS
        for child in self._children:
            self._spawn(child)
            if child.role == "broker":
                self._wait(stop, deadline, self._broker_answers, "the broker")
        self._wait(stop, deadline, self._api_answers, "the control plane")
        self._wait(stop, deadline, lambda: self._nodes_live(begun), "the nodes")

    def _wait(self, stop: threading.Event, deadline: float, ready: Any, what: str) -> None:
        while not stop.wait(_POLL_SECONDS) and not ready():
            self._revive()
            if time.monotonic() > deadline:
                raise Defect(
                    f"{what} did not come up within {_READY_SECONDS:g} s",
                    hint=f"Read the logs in {self._state_dir / 'logs'}.",
                )

    def _broker_answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.broker_url, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _api_answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _nodes_live(self, since: float) -> bool:
        database = Database(self._environment["WARMRACK_DATABASE_URL"])
        try:
            with database.read() as tx:
                live = {
                    node.name
                    for node in nodes.list_nodes(tx)
                    if node.state is NodeState.READY and node.pid in self._pids()
                }
        finally:
            database.close()
        return since > 0 and live >= set(self.node_names)

    def _pids(self) -> set[int]:
        return {child.pid for child in self._children}

    def watch(self, stop: threading.Event) -> None:
        """Start again what dies, until told to stop."""
        while not stop.wait(_RESTART_SECONDS[0]):
            self._revive()

    def _revive(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            if child.restart_at == 0.0:
                steady = now - child.started_at > _STEADY_SECONDS
                child.failures = 0 if steady else child.failures
                pause = _RESTART_SECONDS[min(child.failures, len(_RESTART_SECONDS) - 1)]
                child.restart_at = now + pause
                child.failures += 1
                code = child.process.returncode
                print(f"{child.name} ended with {code}; it is started again", file=sys.stderr)
            if now >= child.restart_at:
                self._spawn(child)

    def _spawn(self, child: _Child) -> None:
        folder = self._state_dir / "logs"
        folder.mkdir(exist_ok=True, mode=0o700)
        with (folder / f"{child.name}.log").open("ab") as log:
            child.process = subprocess.Popen(
                child.command,
                env=child.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        child.started_at = time.monotonic()
        child.restart_at = 0.0

    def stop(self) -> None:
        """End the parts in reverse order of their start, each role within its time."""
        for role in ("node", "control", "broker"):
            group = [c for c in self._children if c.role == role and c.process is not None]
            for child in group:
                if child.process is not None and child.process.poll() is None:
                    child.process.terminate()
            deadline = time.monotonic() + _STOP_SECONDS[role]
            for child in group:
                _end(child, deadline)


def _end(child: _Child, deadline: float) -> None:
    assert child.process is not None
    try:
        child.process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()
