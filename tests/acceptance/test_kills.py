"""kill -9 of any process at any moment: the job still ends, once, and no byte is asked for twice."""

import json
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import warmrack
from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.hub.control import Hub
from tests.hub.faults import Origin, Rate
from tests.hub.models import get_model_folder

pytestmark = pytest.mark.slow

SLOW_BYTES_PER_SECOND = 150_000
QUICK_LEASE = {"WARMRACK_LEASE_SECONDS": "2"}


@pytest.fixture(scope="module")
def stack(hub: Hub) -> Iterator[Stack]:
    with running_stack(hub, nodes=1, settings=QUICK_LEASE) as running:
        yield running


@pytest.fixture
def name(hub: Hub, tmp_path: Path) -> str:
    """A repository whose weights nobody has fetched yet."""
    fresh = f"acme/victim-{uuid.uuid4().hex[:8]}"
    hub.add_repository(fresh, _with_own_bytes("tiny_llama", tmp_path / "model"))
    return fresh


def _with_own_bytes(model: str, folder: Path) -> Path:
    """A copy of a model whose weight file is like no other: equal files are fetched and loaded once,
    whatever their repositories are called."""
    shutil.copytree(get_model_folder(model), folder)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    body = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:body])
    header["__metadata__"] = {**header.get("__metadata__", {}), "nonce": uuid.uuid4().hex}
    packed = json.dumps(header).encode()
    packed += b" " * (-len(packed) % 8)
    weights.write_bytes(len(packed).to_bytes(8, "little") + packed + data[body:])
    return folder


@pytest.fixture
def slow(hub: Hub, name: str) -> Iterator[None]:
    number = hub.add_fault(
        Rate(bytes_per_second=SLOW_BYTES_PER_SECOND), path=f"/{name}/", origin=Origin.CDN
    )
    yield
    hub.clear_faults(number)


def _kill(stack: Stack, part: str) -> None:
    os.kill(stack.find_pid(part), signal.SIGKILL)


def _ended_once(client: warmrack.Client, job_id: str) -> list[str]:
    """The moves of a job that has succeeded, checked to have ended exactly once."""
    done = client.wait(job_id, timeout_seconds=120)
    moves = [event.type for event in client.events(job_id) if event.type != "progress"]
    assert done.state == "succeeded"
    assert [move for move in moves if move in {"succeeded", "failed", "cancelled"}] == ["succeeded"]
    return moves


@pytest.mark.usefixtures("slow")
def test_kill_of_the_agent_in_a_fetch_costs_no_byte_twice(
    stack: Stack, name: str, hub: Hub
) -> None:
    size = hub.get_commit(name).sizes_bytes["model.safetensors"]
    hub.reset_counts()
    with stack.client() as client:
        job = client.prefetch(name)
        hub.wait_for(
            repository=name, origin="cdn", sent_bytes=100_000 + size // 3, timeout_seconds=60
        )
        _kill(stack, "node-0")
        moves = _ended_once(client, job.id)
    assert moves.count("resolving") == 1, "a re-queued job keeps its pinned resolution"
    seen = hub.list_requests(repository=name, origin="cdn")
    resumed = [
        request for request in seen if request.range and not request.range.endswith("-99999")
    ]
    assert resumed, "the second fetch goes on where the first was killed"
    whole = sum(r.sent_bytes for r in seen if not r.range or r in resumed)
    assert whole <= 1.10 * size + 64 * 1024, "sent, and not read, by the killed one"


def test_kill_of_the_agent_in_a_load_ends_in_one_resident(stack: Stack, name: str) -> None:
    with stack.client() as client:
        job = client.load(name)
        for event in client.events(job.id):
            if event.type == "loading":
                break
        _kill(stack, "node-0")
        _ended_once(client, job.id)
        assert [r.model for r in client.residents()].count(name) == 1


def test_kill_of_the_host_in_a_load_is_tried_again(stack: Stack, name: str, hub: Hub) -> None:
    hub.add_repository(name, get_model_folder("smollm2"))
    killed = threading.Event()
    with stack.client() as client:
        job = client.load(name)

        def find_loading() -> int | None:
            if client.job(job.id).state.terminal:
                raise AssertionError("the load was over before its host could be killed")
            found = [r.pid for r in client.residents() if r.model == name and r.state != "warm"]
            return found[0] if found else None

        pid = wait_until("a host that loads", find_loading)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed.set()
        moves = _ended_once(client, job.id)
    assert moves.count("loading") == 2


def test_kill_of_a_warm_host_ends_its_stream_with_an_error(stack: Stack, name: str) -> None:
    with stack.client() as client:
        client.wait(client.load(name).id, timeout_seconds=90)
        pid = next(r.pid for r in client.residents() if r.model == name)
        assert pid is not None
        stream = client.stream_task(name, "generate", {"prompt": "x", "max_tokens": 500})
        next(stream)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(warmrack.errors.HostLost):
            list(stream)
        again = client.wait(client.load(name).id, timeout_seconds=90)
        assert again.state == "succeeded"


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("part", ["control", "broker"])
def test_kill_of_control_plane_or_broker_in_a_fetch_loses_nothing(
    stack: Stack, name: str, part: str
) -> None:
    with stack.client() as client:
        job = client.load(name)
        wait_until("bytes to arrive", lambda: client.job(job.id).progress.bytes_done)
        _kill(stack, part)
        _ended_once(client, job.id)


def test_job_accepted_while_the_broker_is_away_is_rung_for_later(stack: Stack, name: str) -> None:
    broker = stack.find_pid("broker")
    os.kill(broker, signal.SIGSTOP)
    try:
        with stack.client() as client:
            job = client.prefetch(name)
    finally:
        os.kill(broker, signal.SIGCONT)
    with stack.client() as client:
        _ended_once(client, job.id)


@pytest.mark.usefixtures("slow")
def test_cancel_in_a_fetch_is_heard_within_a_second(stack: Stack, name: str) -> None:
    with stack.client() as client:
        job = client.prefetch(name)
        wait_until("bytes to arrive", lambda: client.job(job.id).progress.bytes_done)
        client.cancel(job.id)
        asked_at = time.time()
        with pytest.raises(warmrack.errors.Cancelled):
            client.wait(job.id, timeout_seconds=30)
        ended_at = client.job(job.id).finished_at
    assert ended_at is not None
    assert ended_at.timestamp() - asked_at < 1.0, "by the row: a busy client may hear of it later"


@pytest.mark.usefixtures("slow")
def test_cancelled_leader_hands_its_place_to_who_joined(stack: Stack, name: str) -> None:
    with stack.client() as client:
        leader, joined = client.prefetch(name), client.prefetch(name)
        wait_until("bytes to arrive", lambda: client.job(leader.id).progress.bytes_done)
        client.cancel(leader.id)
        assert client.job(leader.id).state == "cancelled"
        assert client.wait(joined.id, timeout_seconds=60).state == "succeeded"
