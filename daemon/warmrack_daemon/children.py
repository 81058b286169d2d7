"""The child processes of `warmrack up`: started, started again when they die, ended by role."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from warmrack_store.errors import BadRequest, Refusal

MARK = "_WARMRACK_UP"
"""The environment variable by which an `up` finds what another one left on its state directory."""
_HOST_MODULES = {"warmrack_workers.nursery", "warmrack_workers.host"}
_RESTART_SECONDS = (0.2, 1.0, 5.0)
"""The pause before a child's first, second and every further start in a row."""
_STEADY_SECONDS = 30.0
_KILL_SECONDS = 5.0
_REFUSALS: Mapping[int, type[Refusal]] = {kind.exit_code: kind for kind in (BadRequest, Refusal)}
_LAST_WORDS_BYTES = 8192


@dataclass(kw_only=True)
class Child:
    """One part of the stack, and the process that is it at the moment."""

    name: str
    role: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float | None = None

    @property
    def pid(self) -> int:
        """0 before its first start."""
        return self.process.pid if self.process else 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.log_path.parent.mkdir(exist_ok=True, mode=0o700)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started_at = time.monotonic()
        self.restart_at = None

    def revive(self) -> None:
        """Start it again where it has died, after a pause that grows while it keeps dying."""
        if self.process is None or self.running:
            return
        now = time.monotonic()
        if self.restart_at is None:
            steady = now - self.started_at > _STEADY_SECONDS
            self.failures = 0 if steady else self.failures
            self.restart_at = now + _RESTART_SECONDS[min(self.failures, len(_RESTART_SECONDS) - 1)]
            self.failures += 1
            code = self.process.returncode
            said = f": {last_words(self.log_path)}" if code > 0 else ""
            with suppress(OSError):  # stderr may be a file on a full disk
                print(
                    f"{self.name} ended with {code}{said}; it is started again, and "
                    f"{self.log_path} says more",
                    file=sys.stderr,
                )
        if now >= self.restart_at:
            self.start()

    def find_refusal(self) -> Refusal | None:
        """Why it ended, where it has refused what it was started with."""
        code = self.process.poll() if self.process else None
        kind = _REFUSALS.get(code) if code is not None else None
        if kind is None:
            return None
        return kind(
            f"{self.name} cannot start: {last_words(self.log_path)}",
            hint=f"{self.log_path} says more.",
        )

    def end(self, deadline: float) -> None:
        """Wait for its end until `deadline`, then kill it."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def last_words(log_path: Path) -> str:
    """The end of a log in one line: a part's last error with its hint, else its last line."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            tail = log.read().decode(errors="replace")
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    lines = [line.strip() for line in tail.splitlines() if line.strip()] or ["it said nothing"]
    try:
        said = json.loads(lines[-1])["error"]
        return f"{said['message']}. {said['hint']}"
    except (ValueError, LookupError, TypeError):
        return " ".join(lines[-2:]) if lines[-1].startswith("hint:") else lines[-1]


def sweep(state_dir: Path, *, hosts: bool) -> None:
    """End what runs on this directory's behalf besides this process, and wait until it is gone.

    `hosts` ends model hosts and nurseries too; without it they are left for new agents to adopt.
    """
    left = list(_left_over(state_dir, hosts))
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_KILL_SECONDS)


def _left_over(state_dir: Path, hosts: bool) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            mine = process.environ().get(MARK) == str(state_dir) and process.pid != os.getpid()
            if mine and (hosts or not _HOST_MODULES & set(process.cmdline())):
                yield process
        except psutil.Error:
            continue
