"""Each code that a job, a task or a look at one can end with, from the command line and over HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from safetensors.numpy import load, save

from docs.reference import FOLDER
from tests.acceptance import test_error_codes, troubles
from tests.acceptance.error_cases import (
    PLAIN,
    WAIT_SECONDS,
    Case,
    check_command,
    check_http,
    check_problem,
    check_record,
    listed,
    wait_for_end,
)
from tests.acceptance.own_weights import own_weights
from tests.acceptance.stack import Stack, free_port, running_stack
from tests.hub.control import Hub, running_hub
from tests.hub.models import get_model_folder
from warmrack_store import errors

OTHER, REAL = "org/other", "org/real"
CORRUPT, MIXED = "org/corrupt", "org/mixed"
HELD, LATE, BLOCKED = "org/held", "org/late", "org/blocked"
LONG = {"prompt": "word " * 5000}
ENDLESS = {"prompt": "x", "max_tokens": 4000}
KEY = "the-key-of-another-job"
_DISK_BYTES = 2**19


CASES = (
    Case(error=errors.Integrity, model=CORRUPT, trouble=troubles.corrupt_byte),
    Case(error=errors.NotExact, model=MIXED),
    Case(error=errors.Cancelled, model=HELD, trouble=troubles.cancelled),
    Case(
        error=errors.Timeout,
        model=LATE,
        options=("--timeout", "1s"),
        fields={"timeout_seconds": 1},
        trouble=troubles.stalled,
    ),
    Case(error=errors.Expired, trouble=troubles.agent_stopped, expires_seconds=3, slow=True),
    Case(
        error=errors.Poisonous,
        model=REAL,
        trouble=troubles.hosts_killed_while_loading,
        slow=True,
    ),
    Case(
        error=errors.HostLost,
        model=REAL,
        task="generate",
        payload=ENDLESS,
        stored=True,
        fields={"max_attempts": 1},
        trouble=troubles.host_killed_at_work,
        slow=True,
    ),
    Case(error=errors.OutOfMemory, model=REAL, trouble=troubles.little_memory, slow=True),
    Case(error=errors.ContextOverflow, task="generate", payload=LONG),
    Case(error=errors.TaskNotFound, task="divine"),
    Case(
        error=errors.NodeNotFound,
        kind="prefetch",
        options=("--nodes", "nowhere"),
        fields={"nodes": "nowhere"},
    ),
    Case(
        error=errors.IdempotencyConflict,
        kind="prefetch",
        options=("--idempotency-key", KEY),
        headers={"Idempotency-Key": KEY},
        trouble=troubles.key_used(KEY),
    ),
    Case(error=errors.Defect, kind="prefetch", model=BLOCKED, trouble=troubles.folder_in_the_way),
    Case(error=errors.StoreUnavailable, kind="prefetch", trouble=troubles.table_missing),
)
"""In a pool that has room."""

TIGHT_CASES = (
    Case(error=errors.DiskFull, kind="prefetch"),
    Case(error=errors.ModelCold, task="tokenize", payload={"text": "x"}),
    Case(error=errors.OverQuota, kind="prefetch", trouble=troubles.job_held(OTHER)),
    Case(error=errors.RateLimitedHere, kind="prefetch", trouble=troubles.job_waiting(OTHER)),
)
"""In a pool with a small disk and short queues that loads nothing on demand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A look at something that is not there."""

    error: type[errors.WarmrackError]
    command: tuple[str, ...]
    method: str = "GET"
    path: str


LOOKS = (
    Look(error=errors.JobNotFound, command=("job", "job_none"), path="jobs/job_none"),
    Look(
        error=errors.ResidentNotFound,
        command=("unload", "org/nothing"),
        method="DELETE",
        path="residents/org/nothing",
    ),
)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    plain, bert = get_model_folder("tiny_llama"), get_model_folder("tiny_bert")
    tensors = load((bert / "model.safetensors").read_bytes())
    del tensors["pooler.dense.weight"]
    names = (PLAIN, OTHER, CORRUPT, HELD, LATE, BLOCKED)
    served = dict.fromkeys(names, plain) | {REAL: get_model_folder("smollm2"), MIXED: bert}
    with running_hub(served) as running:
        for name in (CORRUPT, HELD, LATE, BLOCKED):
            running.add_commit(name, files={"model.safetensors": own_weights(name)})
        lacking = {"model.safetensors": save(tensors, metadata={"format": "pt"})}
        running.add_commit(MIXED, files=lacking)
        yield running


@pytest.fixture(scope="module")
def pool(hub: Hub) -> Iterator[Stack]:
    with running_stack(hub) as stack:
        yield stack


@pytest.fixture(scope="module")
def tight_pool(hub: Hub) -> Iterator[Stack]:
    with troubles.small_disk(_DISK_BYTES) as disk:
        settings = {
            "WARMRACK_CACHE_DIR": str(disk / "hub"),
            "WARMRACK_MAX_QUEUED": "1",
            "WARMRACK_MAX_QUEUED_PER_TENANT": "1",
            "WARMRACK_ON_DEMAND": "false",
        }
        with running_stack(hub, settings=settings) as stack:
            yield stack


@pytest.mark.parametrize("case", listed(CASES))
def test_code_comes_with_a_hint_from_the_command_line(pool: Stack, case: Case) -> None:
    check_command(pool, case)


@pytest.mark.parametrize("case", listed(CASES))
def test_code_comes_over_http_with_the_job_or_as_a_problem(pool: Stack, case: Case) -> None:
    check_http(pool, case)


@pytest.mark.parametrize("case", listed(TIGHT_CASES))
def test_code_of_a_tight_pool_comes_from_the_command_line(tight_pool: Stack, case: Case) -> None:
    check_command(tight_pool, case)


@pytest.mark.parametrize("case", listed(TIGHT_CASES))
def test_code_of_a_tight_pool_comes_over_http(tight_pool: Stack, case: Case) -> None:
    check_http(tight_pool, case)


@pytest.mark.parametrize("case", listed(CASES[:2]))
def test_task_that_waits_for_such_a_load_gets_its_code_as_a_problem(
    pool: Stack, case: Case
) -> None:
    body = {"model": case.model, "payload": {"text": "x"}}
    with case.trouble(pool, case.model):
        url = f"{pool.url}/api/v1/tasks/tokenize"
        check_problem(httpx.post(url, json=body, timeout=WAIT_SECONDS), case.error)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.error.code)
def test_what_is_not_there_is_said_by_its_own_code(pool: Stack, look: Look) -> None:
    exit_code, answer = pool.run_json(*look.command)
    check_record(answer["error"], look.error)
    assert exit_code == look.error.exit_code
    check_problem(httpx.request(look.method, f"{pool.url}/api/v1/{look.path}"), look.error)


def test_failed_job_has_no_receipt(pool: Stack) -> None:
    body = {"kind": "load", "request": {"model": MIXED}}
    job = httpx.post(f"{pool.url}/api/v1/jobs", json=body, timeout=30).json()
    wait_for_end(pool, job["id"])
    exit_code, answer = pool.run_json("receipt", job["id"])
    check_record(answer["error"], errors.ReceiptNotFound)
    assert exit_code == 3
    check_problem(httpx.get(f"{pool.url}/api/v1/jobs/{job['id']}/receipt"), errors.ReceiptNotFound)


def test_path_that_nobody_serves_is_not_found(pool: Stack) -> None:
    check_problem(httpx.get(f"{pool.url}/api/v1/nothing"), errors.NotFound)


def test_service_that_is_away_is_unreachable(pool: Stack) -> None:
    exit_code, answer = pool.run_json("jobs", WARMRACK_URL="http://127.0.0.1:9")
    check_record(answer["error"], errors.Unreachable)
    assert exit_code == 7


def test_second_up_on_a_state_directory_is_already_running(pool: Stack) -> None:
    command = ["up", "--state-dir", str(pool.state_dir), "--port", str(free_port())]
    exit_code, answer = pool.run_json(*command)
    check_record(answer["error"], errors.AlreadyRunning)
    assert exit_code == 3


ALONE: set[type[errors.WarmrackError]] = {
    errors.ReceiptNotFound,
    errors.NotFound,
    errors.Unreachable,
    errors.AlreadyRunning,
}
"""Provoked by the four tests above."""


def test_every_code_is_provoked_here_or_among_the_resolutions() -> None:
    provoked = test_error_codes.PROVOKED | ALONE
    provoked |= {case.error for case in (*CASES, *TIGHT_CASES)} | {look.error for look in LOOKS}
    branches = {errors.Refusal, errors.Proof, errors.Transient, errors.Ended}
    assert set(errors.leaves()) - branches == provoked


def test_errors_page_has_a_cause_and_a_way_out_for_every_code() -> None:
    rows = [line.split(" | ") for line in (FOLDER / "errors.md").read_text().splitlines()]
    told = {row[0].strip("|` "): row[-2:] for row in rows if row[0].startswith("| `")}
    assert set(told) == {kind.code for kind in errors.leaves()}
    for code, (cause, way_out) in told.items():
        assert len(cause) > 10, code
        assert len(way_out.strip("| ")) > 5, code
