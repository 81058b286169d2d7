"""A warm host that is audited again: what passes, what ends it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.services.hosts import (
    await_state,
    connect,
    flip_last_byte,
    make_snapshot,
    make_spec,
    replace_bytes,
    runtime_folder,
)
from warmrack_workers.host_process import spawn
from warmrack_workers.host_spec import HostSpec, write_spec
from warmrack_workers.ingress import Ingress
from warmrack_workers.processes import kill, wait_end

TASK = {"prompt": "the quick brown fox", "max_tokens": 2}


@pytest.fixture
def spec() -> Iterator[HostSpec]:
    with runtime_folder() as folder:
        yield make_spec(make_snapshot("tiny_llama", folder / "cache"), folder)


@pytest.fixture
def host(spec: HostSpec) -> Iterator[httpx.Client]:
    """A warm one."""
    path = spec.socket_path.with_suffix(".json")
    write_spec(spec, path)
    identity = spawn(spec, path)
    try:
        with connect(spec) as client:
            await_state(client, "warm")
            yield client
    finally:
        kill(identity)
        assert wait_end(identity, 10)


def audit(host: httpx.Client) -> dict[str, Any]:
    answer = host.post("/audit")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_untouched_model_passes_with_every_tensor_and_goes_on_serving(
    host: httpx.Client, spec: HostSpec
) -> None:
    found = audit(host)
    assert {name for name, check in found["checks"].items() if check["passed"]} == {
        f"E{number}" for number in range(1, 9)
    }
    assert {tensor["name"] for tensor in found["tensors"]} == spec.leaves.keys()
    assert all(tensor["equal"] for tensor in found["tensors"])
    receipt = host.get("/status").json()["receipt"]
    assert (found["tensor_root"], found["resident"]) == (receipt["tensor_root"], "r1")
    assert found["read_bytes"] > 0
    assert host.post("/tasks/generate", json=TASK).status_code == 200


def test_audit_is_reached_from_another_machine_through_the_nodes_ingress(
    host: httpx.Client, spec: HostSpec
) -> None:
    sockets = {"r1": str(spec.socket_path)}
    url = Ingress("127.0.0.1:0", node_token="t", find_socket=sockets.get).start()
    headers = {"X-Warmrack-Node-Token": "t"}
    answer = httpx.post(f"{url}/hosts/r1/audit", json={}, headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["resident"]) == (200, "r1")


def test_bit_that_flipped_in_memory_is_named_and_ends_the_host(
    host: httpx.Client, spec: HostSpec
) -> None:
    """The weights are mapped, so that a write to their file in place is one to the memory."""
    replace_bytes(spec.snapshot_dir / "model.safetensors", flip_last_byte, quietly=True)
    found = audit(host)
    assert not found["checks"]["E6"]["passed"]
    assert found["tensor_root"] is None
    assert sum(not tensor["equal"] for tensor in found["tensors"]) == 1
    assert host.post("/tasks/generate", json=TASK).json()["code"] == "model-cold"
    status = await_state(host, "gone")
    assert status["error"]["code"] == "integrity"


def test_changed_config_ends_the_host_and_is_not_parsed(host: httpx.Client, spec: HostSpec) -> None:
    replace_bytes(spec.snapshot_dir / "config.json", lambda data: b"{" + data[1:-1], quietly=True)
    found = audit(host)
    assert list(found["checks"]) == ["E2"]
    assert "config.json" in found["checks"]["E2"]["detail"]
    assert await_state(host, "gone")["error"]["code"] == "integrity"


def test_host_that_has_gone_is_not_audited(host: httpx.Client, spec: HostSpec) -> None:
    (spec.snapshot_dir / "config.json").resolve().unlink()
    assert not audit(host)["checks"]["E2"]["passed"]
    assert host.post("/audit").json()["code"] == "model-cold"
