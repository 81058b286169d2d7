"""A control plane that shares no sockets with the nodes reaches their hosts by the ingress."""

import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest

import warmrack
from tests.acceptance.conftest import LLAMA
from tests.acceptance.stack import WARMRACK, Stack, free_port, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def other_machine(pool: Stack) -> Iterator[str]:
    """A second control plane in a mount namespace of its own, as a container would be."""
    unshare = [shutil.which("unshare") or "unshare", "--mount"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this user may not make a mount namespace")
    port = free_port()
    serving = next(p for p in pool.list_processes() if "warmrack_daemon.serve" in p.cmdline())
    process = subprocess.Popen(
        [*unshare, *WARMRACK, "serve", "--host", "127.0.0.1", "--port", str(port)],
        env=serving.environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until("the second control plane", lambda: _is_ready(url))
        yield url
    finally:
        process.terminate()
        process.wait(timeout=15)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_task_through_the_ingress_gives_the_same_answer(pool: Stack, other_machine: str) -> None:
    payload = {"prompt": "The quick brown fox", "max_tokens": 32}
    with pool.client() as near, warmrack.Client(other_machine) as far:
        near.wait(near.load(LLAMA).id, timeout_seconds=90)
        direct = list(near.stream_task(LLAMA, "generate", payload))
        relayed = list(far.stream_task(LLAMA, "generate", payload))
    assert relayed[-1] == direct[-1]


def test_ingress_refuses_who_does_not_know_the_cluster(pool: Stack) -> None:
    with pool.client() as client:
        job = client.wait(client.load(LLAMA).id, timeout_seconds=90)
        url = next(node.url for node in client.nodes() if node.name == job.node)
    answer = httpx.post(f"{url}/hosts/{job.resident}/tasks/generate", json={"prompt": "x"})
    assert answer.status_code == 403
