"""The commands about jobs and the pool."""

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import (
    COMMIT,
    JOBS,
    Events,
    Reply,
    Service,
    event,
    job,
    page,
    problem,
)
from warmrack_store import errors


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
    assert shown[:4] == ["r1", f"org/name@{COMMIT[:8]}", "bf16", "warm"]
    assert shown[-2:] == ["1", "pinned"]
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
