"""Logging, and the agent's threads, where the disk of the log is full or an error escapes."""

import subprocess
import sys
from pathlib import Path

import pytest

_LOG = """
import structlog
from warmrack_store.logs import configure_logs
from warmrack_store.settings import LogFormat
configure_logs(LogFormat.{kind}, node="n0")
log = structlog.get_logger()
try:
    raise ValueError("what failed first")
except ValueError:
    log.exception("A step failed.", action="defect")
print("goes on")
"""
_THREAD = """
import threading
from warmrack_workers.vital_threads import end_with_vital_threads
end_with_vital_threads()
thread = threading.Thread(target=lambda: 1 / 0, name="{name}")
thread.start()
thread.join()
print("goes on")
"""


def run(code: str, stderr: str) -> subprocess.CompletedProcess[str]:
    with Path(stderr).open("w") as log:
        return subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.mark.parametrize("kind", ["TEXT", "JSON"])
def test_a_line_that_finds_the_disk_full_is_lost_and_nothing_else(kind: str) -> None:
    done = run(_LOG.format(kind=kind), "/dev/full")
    assert (done.returncode, done.stdout) == (0, "goes on\n")


def test_a_line_reaches_the_stream(tmp_path: Path) -> None:
    run(_LOG.format(kind="JSON"), str(tmp_path / "log"))
    assert "what failed first" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("stderr", ["/dev/null", "/dev/full"])
@pytest.mark.parametrize(
    ("name", "code", "out"), [("residency", 1, ""), ("heart", 1, ""), ("other", 0, "goes on\n")]
)
def test_an_error_that_ends_a_vital_thread_ends_the_process(
    name: str, code: int, out: str, stderr: str
) -> None:
    done = run(_THREAD.format(name=name), stderr)
    assert (done.returncode, done.stdout) == (code, out)
