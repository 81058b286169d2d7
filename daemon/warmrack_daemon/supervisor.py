"""`warmrack up`: every part of the real stack on one machine, as children of one process.

Order of the start: broker, control plane, nodes; of the stop: nodes (they drain and end their
hosts), control plane, broker, so that whoever writes last still finds what it writes to. This
process itself imports neither SQLAlchemy nor a broker's client: it only watches.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from warmrack_daemon.children import MARK, Child, sweep
from warmrack_daemon.embedded_broker import EmbeddedBroker
from warmrack_daemon.listening import Listening, check_access, check_port
from warmrack_store.device_specs import parse_devices
from warmrack_store.errors import AlreadyRunning, Defect, WarmrackError
from warmrack_store.named_folders import make_named_folder
from warmrack_store.settings import Settings
from warmrack_store.vault import ensure_key_file

_READY_SECONDS = 90.0
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.2
_STOP_SECONDS = {"node": 12.0, "control": 5.0, "broker": 2.0}
"""Adds up to less than the 20 s after which a service manager kills."""
_NOT_PASSED_ON = frozenset(
    {
        "node",
        "ingress",
        "ingress_url",
        "mirror",
        "mirror_url",
        "url",
        "api_key",
        "hub_token",
    }
)
"""Each node has a name and a port of its own, and a client's settings are the client's."""


def run_up(settings: Settings, listening: Listening, node_count: int) -> None:
    """Run the stack in the foreground until SIGTERM or SIGINT.

    Prints one line of JSON when it is ready. Raises AlreadyRunning where another one has the
    state directory, and a refusal for what no start could make right, before anything starts.
    """
    check_access(settings.auth, listening)
    parse_devices(settings.devices)
    make_named_folder(settings.cache_dir, "cache_dir")
    state_dir = settings.state_dir.expanduser().absolute()
    make_named_folder(state_dir, "state_dir", mode=0o700)
    with _alone(state_dir):
        sweep(state_dir, hosts=False)
        check_port(listening)
        key_file = settings.cluster_key_file or state_dir / "cluster.key"
        ensure_key_file(key_file)
        changes = {"state_dir": state_dir, "cluster_key_file": key_file}
        stack = Stack(settings.model_copy(update=changes), listening, node_count)
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


@contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Hold the state directory; the kernel lets go of it however the process ends."""
    with (state_dir / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(f"another `warmrack up` runs on {state_dir}") from error
        yield


class Stack:
    """The children, in the order of their start."""

    def __init__(self, settings: Settings, listening: Listening, node_count: int) -> None:
        self._listening = listening
        embedded = None if settings.broker_url else EmbeddedBroker(settings.state_dir)
        if embedded is not None:
            settings = settings.model_copy(update={"broker_url": embedded.url})
        self._settings = settings
        self._environment = child_environment(settings)
        self.node_names = [f"node-{index}" for index in range(node_count)]
        serve = [sys.executable, "-m", "warmrack_daemon.serve", *listening.options()]
        self._children = [self._child("control", "control", serve)]
        if embedded is not None:
            self._children.insert(0, self._child("broker", "broker", embedded.command()))
        self._children += [self._node(name) for name in self.node_names]

    def _node(self, name: str) -> Child:
        own = {"WARMRACK_NODE": name}
        if name != self.node_names[0]:
            own["WARMRACK_CACHE_DIR"] = str(self._settings.state_dir / "nodes" / name / "hub")
        return self._child(name, "node", [sys.executable, "-m", "warmrack_workers"], **own)

    def _child(self, name: str, role: str, command: list[str], **own: str) -> Child:
        return Child(
            name=name,
            role=role,
            command=command,
            environment={**self._environment, **own},
            log_path=self._settings.state_dir / "logs" / f"{name}.log",
        )

    @property
    def url(self) -> str:
        return self._listening.url

    def ready_line(self) -> dict[str, Any]:
        """What is printed once all of it is there; holds the broker's password."""
        return {
            "url": self.url,
            "state_dir": str(self._settings.state_dir),
            "nodes": self.node_names,
            "broker_url": self._settings.broker_url,
            "pids": {child.name: child.pid for child in self._children},
        }

    def start(self, stop: threading.Event) -> None:
        """Bring the database up to date, start all parts, and wait until every node lives."""
        self._migrate()
        deadline = time.monotonic() + _READY_SECONDS
        for child in self._children:
            child.start()
            if child.role == "broker":
                self._wait(stop, deadline, self._broker_listens, "the broker")
        self._wait(stop, deadline, lambda: self._get("/readyz") is not None, "the control plane")
        self._wait(stop, deadline, self._nodes_live, "the nodes")

    def _migrate(self) -> None:
        """In a process of its own, whose memory is given back."""
        command = [sys.executable, "-m", "warmrack_daemon", "migrate", "--json"]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise _error_of(done.stdout) or Defect(
                f"the database could not be brought up to date: {done.stderr.strip()}"
            )

    def _wait(
        self, stop: threading.Event, deadline: float, ready: Callable[[], bool], what: str
    ) -> None:
        while not stop.wait(_POLL_SECONDS) and not ready():
            for refusal in filter(None, (child.find_refusal() for child in self._children)):
                raise refusal  # no further start would end otherwise
            self._revive()
            if time.monotonic() > deadline:
                raise Defect(
                    f"{what} did not come up within {_READY_SECONDS:g} s",
                    hint=f"Read the logs in {self._settings.state_dir / 'logs'}.",
                )

    def _broker_listens(self) -> bool:
        broker = urlsplit(str(self._settings.broker_url))
        try:
            with socket.create_connection((broker.hostname, broker.port or 6379), timeout=1):
                return True
        except OSError:
            return False

    def _get(self, path: str) -> Any:
        """The decoded answer of our control plane; None where it has no good one yet."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.url + path, timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def _nodes_live(self) -> bool:
        answer = self._get("/api/v1/nodes") or {"items": []}
        pids = {child.pid for child in self._children}
        ready = [node for node in answer["items"] if node["state"] == "ready"]
        return {node["name"] for node in ready if node["pid"] in pids} >= set(self.node_names)

    def watch(self, stop: threading.Event) -> None:
        """Start again what dies, until told to stop."""
        while not stop.wait(_WATCH_SECONDS):
            self._revive()

    def _revive(self) -> None:
        for child in self._children:
            child.revive()

    def stop(self) -> None:
        """End the parts in reverse order of their start, each role within its time."""
        for role, seconds in _STOP_SECONDS.items():
            group = [child for child in self._children if child.role == role]
            for child in group:
                if child.process is not None and child.running:
                    child.process.terminate()
            deadline = time.monotonic() + seconds
            for child in group:
                child.end(deadline)
        sweep(self._settings.state_dir, hosts=True)


def _error_of(text: str) -> WarmrackError | None:
    """The error that a command with --json has printed; None where it died otherwise."""
    try:
        return WarmrackError.from_record(json.loads(text)["error"])
    except (ValueError, LookupError, TypeError):
        return None


def child_environment(settings: Settings) -> dict[str, str]:
    """The settings in force, as the children read them; this process's own WARMRACK_* are not."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WARMRACK_")}
    values = settings.model_dump(mode="json", exclude=set(_NOT_PASSED_ON), exclude_none=True)
    values["database_url"] = settings.effective_database_url
    ours = {f"WARMRACK_{name.upper()}": _as_text(value) for name, value in values.items()}
    return {**kept, **ours, MARK: str(settings.state_dir)}


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
