"""The commands load, prefetch and explain."""

import pytest

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import (
    COMMIT,
    JOBS,
    Reply,
    Service,
    accept,
    job,
)
from warmrack_store import errors


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


def test_a_job_that_no_node_can_take_says_so_and_its_timeout_is_exit_code_6(
    service: Service, warmrack: Warmrack
) -> None:
    waits = {"bytes_done": 0, "bytes_total": 0, "waiting_for": "a node: none is ready"}
    service.on("POST", JOBS, Reply(status=202, body=job("queued", progress=waits)))
    late = job("cancelled", error=errors.Timeout("it was not done within its 2 s").to_record())
    service.on("GET", f"{JOBS}/j1", Reply(body=late))
    outcome = warmrack("load", "org/name", "--timeout", "2s")
    assert outcome.code == 6
    assert outcome.err.splitlines()[0] == "job j1 waits for a node: none is ready"


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


@pytest.mark.parametrize("command", [("explain",), ("load", "--dry-run")])
def test_a_dry_run_is_an_explanation_and_submits_nothing(
    service: Service, warmrack: Warmrack, command: tuple[str, ...]
) -> None:
    service.on("POST", "/api/v1/explain", Reply(body=RESOLUTION))
    outcome = warmrack(*command, "org/name", "--json")
    assert outcome.json["commit"] == COMMIT
    assert outcome.json["devices"][0]["colour"] == "red"
    assert not service.asked("POST", JOBS)
