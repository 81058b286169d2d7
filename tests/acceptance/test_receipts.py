"""A receipt that leaves the pool, and one that is checked again where its model is."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.hub.control import Hub
from tests.hub.models import get_model_folder

pytestmark = pytest.mark.slow

NAME = "acme/proved"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def stack(hub: Hub) -> Iterator[Stack]:
    hub.add_repository(NAME, get_model_folder("tiny_llama"))
    with running_stack(hub) as running:
        yield running


def run(stack: Stack, *arguments: str) -> tuple[int, Any]:
    """A command with its state directory inside the stack's own folder."""
    client_dir = str(stack.folder / "client")
    return stack.run_json(*arguments, WARMRACK_STATE_DIR=client_dir)


def find_snapshot(stack: Stack) -> Path:
    commit = stack.hub.get_commit(NAME).sha
    return stack.cache_dir / "models--acme--proved" / "snapshots" / commit


def flip_byte(path: Path) -> None:
    """One bit in place, inode, size and times as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        byte = file.read(1)
        file.seek(-10, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def load(stack: Stack) -> str:
    code, job = run(stack, "load", NAME)
    assert code == 0, job
    return str(job["id"])


def test_check_again_of_a_warm_model_reads_everything_and_passes(stack: Stack) -> None:
    code, found = run(stack, "receipt", load(stack), "--verify")
    assert code == 0, found
    assert {file["state"] for file in found["disk"]["files"]} == {"good"}
    assert all(tensor["equal"] for tensor in found["memory"]["tensors"])
    assert len(found["memory"]["tensors"]) > 0


@pytest.mark.parametrize("path", [WEIGHTS, "config.json"])
def test_byte_flipped_after_the_load_is_found_and_the_model_serves_no_longer(
    stack: Stack, path: str
) -> None:
    job = load(stack)
    with stack.client() as client:
        (before,) = [one.id for one in client.residents()]
    flip_byte(find_snapshot(stack) / path)
    code, found = run(stack, "receipt", job, "--verify")
    assert (code, found["error"]["code"]) == (5, "integrity")
    assert f"{path} is corrupt on node-0" in found["differences"]
    assert found["disk"]["quarantined"] == [path]
    with stack.client() as client:
        wait_until("the resident is gone", lambda: before not in [r.id for r in client.residents()])
        assert client.run_task(NAME, "generate", {"prompt": "Hello", "max_tokens": 2})["text"]
    code, found = run(stack, "receipt", load(stack), "--verify")
    assert code == 0, f"fetched and loaded anew: {found}"


def test_explanation_is_proved_by_name_alone(stack: Stack) -> None:
    with stack.client() as client:
        receipt = client.explain(NAME).receipt
    assert receipt is not None
    assert (receipt.level, receipt.files, receipt.tensor_root) == ("name", (), None)
    assert receipt.checks["E1"].passed


def test_prefetch_is_checked_on_the_disk_alone(stack: Stack) -> None:
    stack.run("unload", "--all")
    code, job = run(stack, "prefetch", NAME)
    assert code == 0, job
    code, found = run(stack, "receipt", job["id"], "--verify")
    assert (code, found["memory"]) == (0, None)
    flip_byte(find_snapshot(stack) / WEIGHTS)
    assert run(stack, "receipt", job["id"], "--verify")[0] == 5
    code, found = run(stack, "receipt", job["id"], "--verify")
    assert (code, found["error"]["code"]) == (3, "not-found"), "the only copy is in quarantine"


def test_every_answer_names_its_receipt(stack: Stack) -> None:
    load(stack)
    payload = {"prompt": "Hello", "max_tokens": 2}
    body = {"model": NAME, "payload": payload}
    url = f"{stack.url}/api/v1/tasks/generate"
    whole = httpx.post(url, json=body, trust_env=False, timeout=60)
    receipt_id = whole.headers["X-Warmrack-Receipt"]
    assert receipt_id.startswith("rec_")
    with stack.client() as client:
        shown = client.receipt(receipt_id)
        assert shown.served.repository == NAME
        *_, done = client.stream_task(NAME, "generate", payload)
        queued = client.wait(client.task(NAME, "generate", payload).id)
    assert queued.receipt == receipt_id
    streamed = httpx.post(
        url, json=body, headers={"accept": "text/event-stream"}, trust_env=False, timeout=60
    )
    assert streamed.headers["X-Warmrack-Receipt"] == receipt_id
    final = streamed.text.rstrip().rpartition("data: ")[2]
    assert json.loads(final)["receipt"] == receipt_id
    assert done.result["receipt"] == receipt_id  # type: ignore[union-attr]


def test_exported_receipt_is_verified_after_the_pool_is_gone(stack: Stack) -> None:
    job = load(stack)
    target = str(stack.folder / "receipt.json")
    assert stack.run(
        "receipt", job, "--export", target, WARMRACK_STATE_DIR=str(stack.folder / "client")
    ).returncode == 0  # fmt: skip
    assert stack.stop() == 0
    snapshot = find_snapshot(stack)
    verify = ("receipt", "--verify", target)
    code, found = run(stack, *verify, "--snapshot", str(snapshot))
    assert code == 0, found
    assert found["statement"]["predicate"]["receipt"]["level"] == "loaded"
    assert run(stack, *verify, "--local")[0] == 0
    flip_byte(snapshot / WEIGHTS)
    code, found = run(stack, *verify, "--local")
    assert (code, found["error"]["code"]) == (5, "integrity")
    assert WEIGHTS in found["error"]["message"]
    assert run(stack, *verify)[0] == 0, "the signature alone holds as before"
    text = (stack.folder / "receipt.json").read_text()
    (stack.folder / "receipt.json").write_text(text.replace('"payload": "ey', '"payload": "eY'))
    assert run(stack, *verify)[0] == 5
