"""How the command line refuses, fails, is interrupted and exits."""

import io
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import (
    JOBS,
    Reply,
    Service,
    accept,
    job,
)
from warmrack_store import errors

ERROR_FIELDS = {"code", "message", "hint", "retryable"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Defect("ours"), 1),
        (errors.RepoNotFound("no org/name"), 3),
        (errors.HubUnavailable("503"), 4),
        (errors.Integrity("model.safetensors"), 5),
        (errors.NotExact("E6"), 5),
        (errors.Cancelled("by hand"), 6),
        (errors.Timeout("1 s"), 6),
    ],
)
def test_a_failed_jobs_error_decides_the_exit_code(
    service: Service, warmrack: Warmrack, error: errors.WarmrackError, code: int
) -> None:
    accept(service, job("failed", error=error.to_record()))
    told = warmrack("load", "org/name")
    assert (told.code, told.out) == (code, "")
    assert told.err.splitlines() == [
        "job j1 did not succeed; `warmrack job j1 --logs` says more",
        f"error[{error.code}]: {error.message}",
        f"hint: {error.hint}",
    ]
    as_json = warmrack("load", "org/name", "--json")
    assert (as_json.code, as_json.json) == (code, {"error": error.to_record()})


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("load", "no-slash"), 2, "bad-request"),
        (("load", "org/name", "--precision", "bf17"), 2, "bad-request"),
        (("load", "org/name", "--priority", "asap"), 2, "bad-request"),
        (("load", "org/name", "--keep-alive", "soon"), 2, "bad-request"),
        (("load", "org/name@a", "--revision", "b"), 2, "contradiction"),
        (("load", "org/name", "--mode", "best"), 2, "bad-request"),
        (("load", "org/name", "--locked"), 2, "bad-request"),
        (("prefetch", "org/name", "--nodes", "0"), 2, "bad-request"),
        (("prefetch", "org/name", "--tier", "ram"), 3, "not-supported"),
        (("explain", "org/name", "--network", "dialup"), 2, "bad-request"),
        (("task", "org/name", "generate", "{not json"), 2, "bad-request"),
        (("task", "org/name", "generate", "[1]"), 2, "bad-request"),
        (("task", "org/name", "generate", '{"prompt": "a", "temperature": NaN}'), 2, "bad-request"),
        (
            ("task", "org/name", "generate", '{"prompt": "a", "temperature": 1e999}'),
            2,
            "bad-request",
        ),
        (("run", "org/name", "hi", "--temperature", "nan"), 2, "bad-request"),
        (("run", "org/name", "hi", "--top-p", "inf"), 2, "bad-request"),
        (("run", "org/name", "\udcff\udcfe"), 2, "bad-request"),
        (("embed", "org/name", "\udcff"), 2, "bad-request"),
        (("load", "org/\udcff"), 2, "bad-request"),
        (("job", "\udcff"), 2, "bad-request"),
        (("jobs", "--model", "\udcff"), 2, "bad-request"),
        (("unload",), 2, "bad-request"),
        (("load",), 2, "bad-request"),
        (("load", "org/name", "--colour", "red"), 2, "bad-request"),
        (("frobnicate",), 2, "bad-request"),
    ],
)
def test_what_is_known_to_be_wrong_is_refused_before_any_request(
    service: Service, warmrack: Warmrack, arguments: tuple[str, ...], code: int, error: str
) -> None:
    outcome = warmrack(*arguments, "--json")
    assert outcome.code == code
    assert outcome.json["error"]["code"] == error
    assert outcome.json["error"].keys() == ERROR_FIELDS
    assert service.seen == []
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("name", "value"), [("HUB_TOKEN", "hf_ü"), ("API_KEY", "kü"), ("HUB_TOKEN", "hf_\udcff")]
)
def test_a_key_that_no_header_may_hold_is_told_by_its_variable(
    service: Service, warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"WARMRACK_{name}", value)
    outcome = warmrack("jobs", "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (2, "bad-request")
    assert f"WARMRACK_{name}" in outcome.json["error"]["hint"]
    assert value not in outcome.out


@pytest.mark.parametrize(
    "command", [("run", "org/name", "-"), ("task", "org/name", "generate", "-")]
)
def test_a_pipe_that_is_not_utf_8_is_bad_usage(
    service: Service, warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hi\xff"), encoding="utf-8"))
    outcome = warmrack(*command, "--json")
    assert (outcome.code, "stdin" in outcome.json["error"]["message"]) == (2, True)
    assert service.seen == []


def test_nobody_there_is_exit_code_7(warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMRACK_URL", "http://127.0.0.1:9")
    outcome = warmrack("jobs", "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (7, "unreachable")


def test_an_unknown_setting_is_exit_code_2(
    warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMRACK_COLOUR", "red")
    assert warmrack("jobs").code == 2


def test_migrate_brings_an_empty_state_directory_to_the_newest_schema(
    warmrack: Warmrack, tmp_path: Path
) -> None:
    first = warmrack("migrate", "--state-dir", str(tmp_path), "--json").json
    assert first["revision"]
    assert warmrack("migrate", "--state-dir", str(tmp_path), "--json").json == first


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'httpx', 'pydantic', 'rich', 'fastapi', 'sqlalchemy', 'celery'}"
    code = (
        "import sys; from warmrack_daemon.cli.program import run; run(['--help']);"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - begun < 2.0


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_end_it(service: Service) -> None:
    release = threading.Event()
    service.on("POST", JOBS, Reply(status=202, body=job("queued")))
    service.on("GET", f"{JOBS}/j1", Reply(body=job("fetching"), hold=release))
    # A job in the background of a shell is started with SIGINT ignored, and hands that on.
    command = ["env", "--default-signal=INT", sys.executable]
    command += ["-m", "warmrack_daemon", "load", "org/name", "-v"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "job j1 queued\n"
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()
    release.set()
    assert "job j1 goes on" in said
    assert "warmrack cancel j1" in said
    assert not service.asked("POST", f"{JOBS}/j1/cancel")


@pytest.mark.parametrize("group", [(), ("cache",), ("catalog",)])
def test_no_command_prints_the_help_on_lines_of_its_own(
    warmrack: Warmrack, group: tuple[str, ...]
) -> None:
    outcome = warmrack(*group)
    assert (outcome.code, outcome.err) == (2, "")
    assert outcome.out.startswith(f"Usage: {' '.join(('warmrack', *group))}")
    assert outcome.out.count("\n") > 5
    assert outcome.out == warmrack(*group, "--help").out


def test_the_version_is_the_packages(warmrack: Warmrack) -> None:
    outcome = warmrack("--version")
    assert (outcome.code, outcome.out) == (0, f"warmrack {version('warmrack')}\n")


def test_ctrl_c_while_the_program_is_still_being_read_is_quiet() -> None:
    program = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from warmrack_daemon.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
