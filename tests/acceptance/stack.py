"""`warmrack up` as a process of its own, driven by its real commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any, TypeVar

import psutil

import warmrack
from tests.hub.control import Hub

T = TypeVar("T")
WARMRACK = [sys.executable, "-m", "warmrack_daemon"]
_READY_SECONDS = 90.0
_STOP_SECONDS = 25.0
_MARK = "_WARMRACK_UP"


def wait_until(what: str, find: Callable[[], T], timeout_seconds: float = 60.0) -> T:
    """The first true answer of `find`; fails the test, naming `what`, at the deadline."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := find()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds:g} s: {what}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass(kw_only=True)
class Stack:
    """A stack that can be started again on the same state directory."""

    hub: Hub
    folder: Path
    nodes: int
    devices: str
    settings: Mapping[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def cache_dir(self) -> Path:
        return self.folder / "cache"

    @property
    def environment(self) -> dict[str, str]:
        ours = {
            "WARMRACK_URL": self.url,
            "WARMRACK_CACHE_DIR": str(self.cache_dir),
            "HF_ENDPOINT": self.hub.url,
        }
        kept = {
            name: v for name, v in os.environ.items() if not name.startswith(("WARMRACK_", "HF_"))
        }
        return {**kept, **ours, **self.settings}

    def up_command(self) -> list[str]:
        options = ["--state-dir", str(self.state_dir), "--port", str(self.port)]
        return [*WARMRACK, "up", *options, "--nodes", str(self.nodes), "--devices", self.devices]

    def start(self) -> None:
        with (self.folder / "up.log").open("a") as log:
            self.process = subprocess.Popen(
                self.up_command(),
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"up did not come up:\n{(self.folder / 'up.log').read_text()}\n{self.logs()}"
        self.ready = json.loads(line)

    def stop(self) -> int:
        """Ctrl-C, and the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=_STOP_SECONDS)
        self._close()
        return code

    def kill_everything(self) -> None:
        """kill -9 of `up` and all its children at once, hosts included."""
        assert self.process is not None
        for process in [psutil.Process(self.process.pid), *self.list_processes()]:
            process.kill()
        self.process.wait(timeout=5)
        self._close()

    def _close(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    def list_processes(self) -> list[psutil.Process]:
        """Every living process that this stack has started, hosts and nurseries too."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get(_MARK) == str(self.state_dir)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def find_pid(self, name: str) -> int:
        """The process that is this part now; parts that died are started again."""
        marks = {"control": ("-m warmrack_daemon.serve ",), "broker": ("valkey-server",)}
        for process in self.list_processes():
            try:
                command = " ".join(process.cmdline())
                environment = process.environ()
            except psutil.Error:
                continue
            if name in marks and all(mark in command for mark in marks[name]):
                return process.pid
            agent = command.endswith("-m warmrack_workers")
            if agent and environment.get("WARMRACK_NODE") == name:
                return process.pid
        raise AssertionError(f"{name} does not run")

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """One command of the real command line."""
        return subprocess.run(
            [*WARMRACK, *arguments],
            env={**self.environment, **settings},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    def run_json(self, *arguments: str, **settings: str) -> tuple[int, Any]:
        """Exit code and the JSON that the command prints."""
        done = self.run(*arguments, "--json", **settings)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def client(self, *, hub_token: str | None = None) -> warmrack.Client:
        return warmrack.Client(self.url, hub_token=hub_token)

    def logs(self) -> str:
        """The last lines of every part's log, for a failing test's message."""
        parts = sorted((self.state_dir / "logs").glob("*.log"))
        return "\n".join(
            f"== {p.name}\n" + "\n".join(p.read_text().splitlines()[-15:]) for p in parts
        )


@contextmanager
def running_stack(
    hub: Hub,
    *,
    nodes: int = 1,
    devices: str = "cpu:0=4GiB",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """A started stack; at the end it is stopped, and nothing of it may be left."""
    folder = Path(tempfile.mkdtemp(prefix="warmrack-acceptance-"))
    stack = Stack(hub=hub, folder=folder, nodes=nodes, devices=devices, settings=settings or {})
    try:
        stack.start()
        yield stack
    except BaseException:
        print(stack.logs(), file=sys.stderr)
        raise
    finally:
        if stack.process is not None and stack.process.poll() is None:
            stack.stop()
        left = stack.list_processes()
        for process in left:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"left running: {[process.pid for process in left]}"
