"""What the command line shows on a terminal and in a pipe."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass

import pytest

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import (
    JOBS,
    Service,
    accept,
    job,
    page,
)


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """One end of a pseudo-terminal of so many columns."""

    screen: int
    program: int

    @property
    def environ(self) -> dict[str, str]:
        """Of a program that shall see this terminal's own size."""
        kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        return {**kept, "TERM": "xterm"}

    def read(self) -> str:
        """What the program showed until it let go of its end."""
        os.close(self.program)
        shown = b""
        with os.fdopen(self.screen, "rb", buffering=0) as screen:
            while True:
                try:
                    piece = screen.read(65536)
                except OSError:  # how Linux says that nobody holds the other end any more
                    return shown.decode()
                shown += piece


def open_terminal(columns: int) -> Terminal:
    screen, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    return Terminal(screen=screen, program=program)


def test_on_a_terminal_the_progress_is_a_bar_on_stderr_and_stdout_stays_data(
    service: Service,
) -> None:
    halfway = {"bytes_done": 2**20, "bytes_total": 2**21, "rate": 2**19, "eta_seconds": 2.0}
    accept(service, job("fetching", progress=halfway), job("succeeded"))
    terminal = open_terminal(120)
    command = [sys.executable, "-m", "warmrack_daemon", "load", "org/name", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal.program, env=terminal.environ
    ) as process:
        shown = terminal.read()
        out, _ = process.communicate(timeout=20)
    assert json.loads(out)["state"] == "succeeded"
    assert "job j1 fetching" in shown
    assert "1.0 MiB of 2.0 MiB, 512.0 KiB/s, 2.0 s left" in shown


@pytest.mark.parametrize("columns", [60, 200], ids=["narrow", "wide"])
def test_on_a_terminal_of_any_width_an_id_stays_in_one_piece(
    service: Service, columns: int
) -> None:
    name = "job_0123456789abcdefghj"
    service.on("GET", JOBS, page(job("queued", id=name, cause="because " * 20)))
    terminal = open_terminal(columns)
    command = [sys.executable, "-m", "warmrack_daemon", "jobs"]
    with subprocess.Popen(command, stdout=terminal.program, env=terminal.environ):
        shown = terminal.read()
    assert name in shown
    assert shown.count("because") == 20


def test_control_characters_of_a_name_never_reach_the_terminal(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("GET", JOBS, page(job("queued", model="org/\x1b[2Jname")))
    assert "\x1b" not in warmrack("jobs").out


def test_a_reader_that_goes_away_ends_the_command_quietly(service: Service) -> None:
    service.on("GET", JOBS, page(*(job("queued", cause="x" * 5000) for _ in range(100))))
    command = f"{sys.executable} -m warmrack_daemon jobs | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
