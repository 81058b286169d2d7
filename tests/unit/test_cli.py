"""The command line against a scripted service: what it prints, where, and how it exits."""

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.scripted_service import (
    COMMIT,
    Events,
    Reply,
    Service,
    event,
    job,
    page,
    problem,
    serving,
)
from warmrack_daemon.cli.program import run
from warmrack_store import errors

JOBS = "/api/v1/jobs"
GENERATE = "/api/v1/tasks/generate"
ERROR_FIELDS = {"code", "message", "hint", "retryable"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Warmrack = Callable[..., Outcome]


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def service(running: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    running.forget()
    monkeypatch.setenv("WARMRACK_URL", running.url)
    return running


@pytest.fixture
def warmrack(service: Service, capsys: pytest.CaptureFixture[str]) -> Warmrack:
    def call(*arguments: str) -> Outcome:
        code = run(arguments)
        out, err = capsys.readouterr()
        return Outcome(code=code, out=out, err=err)

    return call


def accept(service: Service, *states: dict[str, object]) -> None:
    """The service accepts a job that passes through these states."""
    service.on("POST", JOBS, Reply(status=202, body=job("queued")))
    service.on("GET", f"{JOBS}/j1", *(Reply(body=state) for state in states))


def test_load_waits_for_the_end_and_prints_what_is_served(
    service: Service, warmrack: Warmrack
) -> None:
    accept(service, job("fetching"), job("succeeded"))
    outcome = warmrack("load", "org/name", "--keep-alive", "1h", "--node", "node-0")
    assert outcome.code == 0
    assert outcome.out == f"job j1 succeeded: org/name@{COMMIT} bf16 on node-0\n"
    assert outcome.err == ""
    body = service.asked("POST", JOBS)[0].body
    assert (body["kind"], body["keep_alive"], body["nodes"]) == ("load", "1h", ["node-0"])


def test_load_with_json_prints_the_finished_job_as_the_service_has_it(
    service: Service, warmrack: Warmrack
) -> None:
    accept(service, job("succeeded", colour="red"))
    assert warmrack("load", "org/name", "--json").json == job(
        "succeeded", colour="red", created_at="2026-01-02T03:04:05.678000Z"
    )


def test_verbose_says_each_change_of_state_once_on_stderr(
    service: Service, warmrack: Warmrack
) -> None:
    waiting = {"bytes_done": 0, "bytes_total": 0, "waiting_for": "room on cpu:0", "position": 2}
    accept(service, job("queued", progress=waiting), job("loading"), job("succeeded"))
    outcome = warmrack("load", "org/name", "-v")
    assert outcome.err.splitlines() == [
        "job j1 queued",
        "job j1 queued (waits for room on cpu:0, place 2)",
        "job j1 loading",
        "job j1 succeeded",
    ]


def test_no_wait_prints_the_accepted_job_and_asks_nothing_more(
    service: Service, warmrack: Warmrack
) -> None:
    accept(service, job("succeeded"))
    assert warmrack("load", "org/name", "--no-wait", "--json").json["state"] == "queued"
    assert len(service.seen) == 1


def test_prefetch_sends_its_tier_and_nodes(service: Service, warmrack: Warmrack) -> None:
    accept(service, job("succeeded"))
    assert warmrack("prefetch", "org/name", "--nodes", "node-1", "--timeout", "2m").code == 0
    body = service.asked("POST", JOBS)[0].body
    assert (body["kind"], body["tier"], body["nodes"]) == ("prefetch", "disk", "node-1")
    assert body["timeout_seconds"] == 120


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
    assert told.err == f"error[{error.code}]: {error.message}\nhint: {error.hint}\n"
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
        (("load", "org/name", "--mode", "optimized"), 3, "not-supported"),
        (("load", "org/name", "--locked"), 3, "not-supported"),
        (("prefetch", "org/name", "--nodes", "all"), 3, "not-supported"),
        (("prefetch", "org/name", "--tier", "ram"), 3, "not-supported"),
        (("explain", "org/name", "--precision", "bf16"), 3, "not-supported"),
        (("task", "org/name", "generate", "{not json"), 2, "bad-request"),
        (("task", "org/name", "generate", "[1]"), 2, "bad-request"),
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


def test_nobody_there_is_exit_code_7(warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMRACK_URL", "http://127.0.0.1:9")
    outcome = warmrack("jobs", "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (7, "unreachable")


def test_an_unknown_setting_is_exit_code_2(
    warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMRACK_COLOUR", "red")
    assert warmrack("jobs").code == 2


RESOLUTION = {
    "request_digest": "d",
    "asked": "org/name",
    "ref_asked": "main",
    "repository": "org/name",
    "commit": COMMIT,
    "private": False,
    "gated": False,
    "substitution": "none",
    "files": [{"path": "config.json", "size": 2048, "git_sha1": "a" * 40}],
    "weights": [],
    "architecture": "LlamaForCausalLM",
    "model_type": "llama",
    "parameters": 1234567,
    "stored_dtypes": {"BF16": 3},
    "precision": "bf16",
    "tokenizer_files": [],
    "memory": {
        "weights_bytes": 2**20,
        "cache_bytes": 2**20,
        "context_tokens": 4096,
        "workspace_bytes": 0,
    },
    "generates": True,
    "trail": [{"rule": "R3", "input": "main", "decision": COMMIT, "evidence": "the Hub's ref"}],
    "rejected": [{"repository": "other/name", "code": "lineage-mismatch", "reason": "8B"}],
    "warnings": ["the branch moved today"],
    "catalog_version": "none",
    "devices": [
        {
            "node": "node-0",
            "device": "cpu:0",
            "budget_bytes": 2**30,
            "free_bytes": 2**20,
            "fits": True,
            "fits_now": False,
            "expected_seconds": 1.5,
            "reason": "on its disk",
            "colour": "red",
        },
        {
            "node": "node-1",
            "device": "cpu:0",
            "budget_bytes": 2**20,
            "free_bytes": 2**20,
            "fits": False,
            "fits_now": False,
            "reason": "needs 2.0 MiB, has 1.0 MiB",
        },
    ],
}


def test_explain_shows_asked_served_memory_devices_and_trail_at_a_glance(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("POST", "/api/v1/explain", Reply(body=RESOLUTION))
    out = warmrack("explain", "org/name").out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "asked org/name@main" in lines
    assert "served org/name (as asked)" in lines
    assert f"commit {COMMIT}" in lines
    assert "files 1, 2.0 KiB" in lines
    assert any(line.startswith("memory 2.0 MiB = weights 1.0 MiB") for line in lines)
    assert "~ node-0 cpu:0 1.0 GiB 1.0 MiB 1.5 s on its disk, once others have gone" in lines
    assert "✗ node-1 cpu:0 1.0 MiB 1.0 MiB needs 2.0 MiB, has 1.0 MiB" in lines
    assert f"R3 main {COMMIT} the Hub's ref" in lines
    assert "other/name lineage-mismatch 8B" in lines
    assert "warning the branch moved today" in lines


@pytest.mark.parametrize("command", [("explain",), ("load", "--dry-run")])
def test_a_dry_run_is_an_explanation_and_submits_nothing(
    service: Service, warmrack: Warmrack, command: tuple[str, ...]
) -> None:
    service.on("POST", "/api/v1/explain", Reply(body=RESOLUTION))
    outcome = warmrack(*command, "org/name", "--json")
    assert outcome.json["commit"] == COMMIT
    assert outcome.json["devices"][0]["colour"] == "red"
    assert not service.asked("POST", JOBS)


def test_run_prints_tokens_and_nothing_else_on_stdout(service: Service, warmrack: Warmrack) -> None:
    chunks = (
        event("token", {"text": "Hel"}),
        event("token", {"text": "lo\n"}),
        event("done", {"text": "Hello\n", "finish_reason": "stop", "usage": {}}),
    )
    service.on("POST", GENERATE, Events(chunks=chunks))
    outcome = warmrack("run", "org/name", "Say", "--max-tokens", "5", "--temperature", "0")
    assert (outcome.code, outcome.out, outcome.err) == (0, "Hello\n\n", "")
    payload = service.asked("POST", GENERATE)[0].body["payload"]
    assert payload == {"prompt": "Say", "max_tokens": 5, "temperature": 0.0}


def test_run_on_a_cold_model_watches_its_load_and_then_prints(
    service: Service, warmrack: Warmrack
) -> None:
    done = event("done", {"text": "", "finish_reason": "stop"})
    service.on(
        "POST",
        GENERATE,
        problem(errors.ModelCold("cold"), job="j1"),
        Events(chunks=(event("token", {"text": "warm"}), done)),
    )
    service.on("GET", f"{JOBS}/j1", Reply(body=job("loading")), Reply(body=job("succeeded")))
    outcome = warmrack("run", "org/name", "Say", "-v")
    assert (outcome.code, outcome.out) == (0, "warm\n")
    assert "job j1 loading" in outcome.err


def test_run_keeps_what_it_printed_when_the_host_is_lost(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("POST", GENERATE, Events(chunks=(event("token", {"text": "Hel"}),), broken=True))
    outcome = warmrack("run", "org/name", "Say")
    assert (outcome.code, outcome.out) == (4, "Hel\n")
    assert "error[host-lost]" in outcome.err


def test_run_with_json_prints_the_whole_result(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", GENERATE, Reply(body={"text": "Hello", "usage": {"prompt_tokens": 1}}))
    assert warmrack("run", "org/name", "Say", "--json").json["text"] == "Hello"


def test_task_reads_its_payload_from_stdin(
    service: Service, warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.on("POST", "/api/v1/tasks/tokenize", Reply(body={"tokens": [1], "count": 1}))
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"text": "é"}'))
    assert warmrack("task", "org/name", "tokenize", "-").json == {"tokens": [1], "count": 1}
    assert service.seen[0].body["payload"] == {"text": "é"}


def test_embed_sends_its_texts(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", "/api/v1/tasks/embed", Reply(body={"vectors": [[0.5], [1.0]]}))
    assert warmrack("embed", "org/name", "a", "b").json["vectors"] == [[0.5], [1.0]]
    assert service.seen[0].body["payload"] == {"texts": ["a", "b"]}


def test_jobs_are_aligned_columns_when_piped_and_a_list_with_json(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("GET", JOBS, page(job("queued"), job("failed", cause="gated")))
    header, first, second = warmrack("jobs").out.splitlines()
    assert header.split() == ["ID", "KIND", "STATE", "MODEL", "NODE", "CAUSE"]
    assert first.split() == ["j1", "load", "queued", "org/name", "node-0"]
    assert second.index("failed") == first.index("queued") == header.index("STATE")
    assert [one["state"] for one in warmrack("jobs", "--json").json["items"]] == [
        "queued",
        "failed",
    ]


def test_job_shows_its_error_and_with_logs_its_stored_events(
    service: Service, warmrack: Warmrack
) -> None:
    failed = job("loading", error=errors.HostLost("pid 7 ended").to_record())
    service.on("GET", f"{JOBS}/j1", Reply(body=failed))
    stored = (event("queued", {"cause": "host-lost"}, id=3), event("progress", {}))
    service.on("GET", f"{JOBS}/j1/events", Events(chunks=stored))
    out = warmrack("job", "j1", "--logs").out
    assert "host-lost: pid 7 ended" in out
    assert '3  queued  {"cause": "host-lost"}' in out
    assert warmrack("job", "j1", "--logs", "--json").json["events"][0]["id"] == "3"


def test_cancel_says_whether_the_job_has_ended(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", f"{JOBS}/j1/cancel", Reply(body=job("loading")))
    assert "as soon as" in warmrack("cancel", "j1").out
    service.on("POST", f"{JOBS}/j1/cancel", Reply(body=job("cancelled")))
    assert warmrack("cancel", "j1").out == "job j1 cancelled\n"
    assert warmrack("cancel", "j2").code == 3


def test_receipt_marks_each_of_the_eight_checks(service: Service, warmrack: Warmrack) -> None:
    checks = {f"E{n}": {"passed": n != 6, "detail": f"detail {n}"} for n in range(1, 8)}
    body = {
        "id": "x",
        "job": "j1",
        "level": "loaded",
        "asked": "org/name",
        "served": {"repository": "org/name", "commit": COMMIT, "precision": "bf16"},
        "checks": checks,
        "files": [],
        "tensor_root": "f" * 64,
        "identical": False,
    }
    service.on("GET", f"{JOBS}/j1/receipt", Reply(body=body))
    out = warmrack("receipt", "j1").out
    marks = [line.split()[:2] for line in out.splitlines()[-8:]]
    assert marks == [["✓", f"E{n}"] for n in range(1, 6)] + [["✗", "E6"], ["✓", "E7"], ["-", "E8"]]
    assert "NOT identical" in out
    assert warmrack("receipt", "j1", "--json").json == body


def test_ps_nodes_and_cache_list_the_pool(service: Service, warmrack: Warmrack) -> None:
    resident = {
        "id": "r1",
        "model": "org/name",
        "commit": COMMIT,
        "precision": "bf16",
        "state": "warm",
        "node": "node-0",
        "device": "cpu:0",
        "pid": 7,
        "bytes": 3 * 2**20,
        "leases": 1,
        "pinned": True,
        "idle_seconds": 90.0,
    }
    device = {"name": "cpu:0", "budget_bytes": 2**32, "used_bytes": 0}
    ready = {"name": "node-0", "state": "ready", "devices": [device]}
    lost = {"name": "node-1", "state": "lost", "devices": []}
    snapshot = {"repository": "org/name", "commit": COMMIT, "nodes": ["node-0"], "bytes_done": 10}
    service.on("GET", "/api/v1/residents", page(resident))
    service.on("GET", "/api/v1/nodes", page(ready, lost))
    service.on("GET", "/api/v1/snapshots", page(snapshot))
    shown = warmrack("ps").out.splitlines()[1].split()
    assert shown[:5] == ["r1", "org/name", COMMIT[:12], "bf16", "warm"]
    assert shown[-2:] == ["pinned", "1m30s"]
    assert [line.split()[1] for line in warmrack("nodes").out.splitlines()[1:]] == [
        "ready",
        "lost",
    ]
    assert "10 B" in warmrack("cache", "ls").out
    assert warmrack("ps", "--json").json["items"] == [resident]


def test_unload_by_name_and_of_everything(service: Service, warmrack: Warmrack) -> None:
    one = {"id": "r1", "model": "org/name", "state": "warm"}
    service.on("DELETE", "/api/v1/residents/org/name", page(one))
    service.on("DELETE", "/api/v1/residents/r1", page(one))
    service.on("GET", "/api/v1/residents", page())
    assert warmrack("unload", "org/name").out == "unloaded org/name (r1)\n"
    service.on("GET", "/api/v1/residents", page(one))
    assert warmrack("unload", "--all", "--no-wait").out == "unloading org/name (r1)\n"
    service.on("DELETE", "/api/v1/residents/x", problem(errors.ResidentNotFound("no x")))
    assert warmrack("unload", "x", "--json").json["error"]["code"] == "resident-not-found"


def test_control_characters_of_a_name_never_reach_the_terminal(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("GET", JOBS, page(job("queued", model="org/\x1b[2Jname")))
    assert "\x1b" not in warmrack("jobs").out


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
    command = [sys.executable, "-m", "warmrack_daemon", "load", "org/name", "-v"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "job j1 queued\n"
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(timeout=20) == 130
    release.set()
    assert "job j1 goes on" in said
    assert "warmrack cancel j1" in said
    assert not service.asked("POST", f"{JOBS}/j1/cancel")


def test_a_reader_that_goes_away_ends_the_command_quietly(service: Service) -> None:
    service.on("GET", JOBS, page(*(job("queued", cause="x" * 5000) for _ in range(100))))
    command = f"{sys.executable} -m warmrack_daemon jobs | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
