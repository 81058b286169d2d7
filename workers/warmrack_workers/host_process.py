"""Starting hosts from the agent: forked from its nursery where that is possible, else spawned."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from warmrack_store.errors import Defect, HostLost
from warmrack_workers.backends import get_entry
from warmrack_workers.host_spec import HostSpec, write_spec
from warmrack_workers.nursery import ONE_THREAD
from warmrack_workers.processes import ProcessIdentity, get_identity

log = structlog.get_logger()

FORK_DEADLINE_SECONDS = 10.0
"""A fork answers within milliseconds; a nursery that does not is hung."""
READY_PATIENCE_SECONDS = 20.0
"""A nursery that is starting is ahead of a fresh host, which would import the same libraries and
compete with it for the cores; only one that hangs is not waited for."""
RESTART_PAUSE_SECONDS = 5.0
"""Between two starts of a nursery that keeps dying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """An answer of the nursery; None is its end."""

    record: Mapping[str, object] | None


class _Running:
    """One nursery process and the thread that reads its answers."""

    def __init__(self, log_path: Path) -> None:
        self.started = time.monotonic()
        self.ready = threading.Event()
        self.ended = threading.Event()
        self.answers: queue.SimpleQueue[_Line] = queue.SimpleQueue()
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "warmrack_workers.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **ONE_THREAD},
                start_new_session=True,
            )
        threading.Thread(target=self._read, name="nursery-reader", daemon=True).start()

    def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Raises HostLost where it ends or is silent; it must not be asked again then."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            answer = self.answers.get(timeout=FORK_DEADLINE_SECONDS)
        except (OSError, ValueError, queue.Empty) as error:
            raise HostLost(f"the nursery does not answer: {error!r}") from error
        if answer.record is None:
            raise HostLost("the nursery ended while it forked a host")
        return answer.record

    def stop(self) -> None:
        """End of file ends it; a hung one is killed. Its hosts live on."""
        self._close_stdin()
        try:
            self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.ended.wait(5.0)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                record = json.loads(line)
                if record.get("ready"):
                    self.ready.set()
                else:
                    self.answers.put(_Line(record=record))
        self.process.wait()
        self._close_stdin()
        self.ended.set()
        self.answers.put(_Line(record=None))

    def _close_stdin(self) -> None:
        assert self.process.stdin is not None
        # A request that a dead nursery never read is flushed by the close, into a broken pipe.
        with suppress(BrokenPipeError):
            self.process.stdin.close()


class Nursery:
    """The agent's handle. Any thread may call it; forks are made one after another."""

    def __init__(self, log_path: Path) -> None:
        self._log_path = log_path
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._stopped = False

    def start(self) -> None:
        """Returns at once; the nursery is ready some seconds later."""
        with self._lock:
            self._stopped = False
            self._get_running()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._running is not None:
                self._running.stop()
                self._running = None

    @property
    def pid(self) -> int | None:
        """Of the nursery that runs now."""
        running = self._running
        return running.process.pid if running and not running.ended.is_set() else None

    def wait_ready(self, timeout_seconds: float) -> bool:
        """True once a fork would be answered; False at the deadline, or where it has ended."""
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            running = self._get_running()
        if running is None:
            return False
        while not running.ended.is_set() and (left := deadline - time.monotonic()) > 0:
            if running.ready.wait(min(left, 0.1)):
                return not running.ended.is_set()
        return running.ready.is_set() and not running.ended.is_set()

    def wait_ended(self, timeout_seconds: float) -> bool:
        """True once the nursery that ran last has ended; its end is seen by its closed stdout."""
        running = self._running
        return running is None or running.ended.wait(timeout_seconds)

    def fork(self, spec_path: Path) -> ProcessIdentity:
        """A host forked from the nursery. Raises HostLost where the nursery is not ready, ends or
        hangs; then the socket's path must not be used again, since a host may still come up."""
        with self._lock:
            running = self._get_running()
            if running is None or not running.ready.is_set():
                raise HostLost("the nursery is not ready")
            try:
                record = running.ask({"fork": str(spec_path)})
            except HostLost:
                running.process.kill()
                self._running = None
                raise
        if "error" in record:
            raise HostLost(f"the nursery could not fork a host: {record['error']}")
        return ProcessIdentity(
            pid=int(str(record["pid"])), start_time=int(str(record["start_time"]))
        )

    def launch(self, spec: HostSpec, spec_path: Path) -> ProcessIdentity:
        """Write the spec and start a host: forked, or spawned where the nursery is not ready in
        time or the backend cannot be forked. The host's socket appears some time later."""
        write_spec(spec, spec_path)
        if get_entry(spec.backend).forkable and self.wait_ready(READY_PATIENCE_SECONDS):
            return self.fork(spec_path)
        return spawn(spec, spec_path)

    def _get_running(self) -> _Running | None:
        """The nursery, started again where it has ended; None while it is stopped or pausing."""
        running = self._running
        if running is not None and running.ended.is_set():
            if time.monotonic() - running.started < RESTART_PAUSE_SECONDS:
                return None
            log.warning("The nursery has ended and is started again.", action="nursery")
            running = self._running = None
        if running is None and not self._stopped:
            running = self._running = _Running(self._log_path)
        return running


def spawn(spec: HostSpec, spec_path: Path) -> ProcessIdentity:
    """A host as a fresh process. Raises Defect where it cannot be started."""
    threads = str(spec.threads)
    environment = {
        **os.environ,
        **ONE_THREAD,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    try:
        with spec.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "warmrack_workers.host", str(spec_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
    except OSError as error:
        raise Defect(f"a host cannot be started: {error}") from error
    # Somebody must take its exit code, else it stays a zombie.
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return get_identity(process.pid)
