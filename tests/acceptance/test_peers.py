"""Nodes read from one another what the Hub sends once, also while it arrives and while some die."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load, save

from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub
from tests.hub.faults import Origin, Rate
from tests.hub.models import get_model_folder

pytestmark = pytest.mark.slow

_WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def three(hub: Hub) -> Iterator[Stack]:
    with running_stack(hub, nodes=3, settings={"WARMRACK_LEASE_SECONDS": "2"}) as stack:
        yield stack


def _publish(hub: Hub, name: str, folder: Path, size_bytes: int) -> None:
    """A repository whose weights have bytes like no others, and so many more than tiny_llama's."""
    shutil.copytree(get_model_folder("tiny_llama"), folder)
    data = (folder / _WEIGHTS).read_bytes()
    filling = np.random.default_rng(len(name)).integers(0, 256, size_bytes, dtype=np.uint8)
    tensors = {**load(data), "unused.filling": filling}
    (folder / _WEIGHTS).unlink()  # it may be a link to the original
    (folder / _WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt", "of": name}))
    hub.add_repository(name, folder)


@contextmanager
def _limited(hub: Hub, bytes_per_second: float) -> Iterator[None]:
    number = hub.add_fault(
        Rate(bytes_per_second=bytes_per_second), path=_WEIGHTS, origin=Origin.CDN
    )
    try:
        yield
    finally:
        hub.clear_faults(number)


def _prefetch(stack: Stack, name: str, nodes: list[str]) -> list[str]:
    with stack.client() as client:
        return [client.prefetch(name, nodes=[node]).id for node in nodes]


def _await(stack: Stack, jobs: list[str]) -> None:
    with stack.client() as client:
        for job in jobs:
            assert client.wait(job, timeout_seconds=90).state == "succeeded"


def _weights_bytes(hub: Hub, name: str) -> int:
    """What the Hub sent of the weights, less the ranged reads of their header for facts."""
    seen = hub.list_requests(repository=name, traffic="file", origin="cdn")
    header = [one.sent_bytes for one in seen if one.range == "bytes=0-99999"]
    return sum(one.sent_bytes for one in seen) - sum(header)


def _size_bytes(hub: Hub, name: str) -> int:
    return hub.get_commit(name).sizes_bytes[_WEIGHTS]


def _egress(stack: Stack, name: str) -> dict[str, int]:
    code, rows = stack.run_json("cache", "egress", "--by", "repository")
    assert code == 0
    found = rows["items"] if isinstance(rows, dict) else rows
    return next(row for row in found if row["repository"] == name)


def test_nodes_that_fetch_at_once_cost_the_hub_one_copy(
    three: Stack, hub: Hub, tmp_path: Path
) -> None:
    name = "acme/fetched-by-three"
    _publish(hub, name, tmp_path / "model", 40 * 2**20)
    hub.reset_counts()
    with _limited(hub, 20e6):
        code, job = three.run_json("prefetch", name, "--nodes", "all")
    assert (code, job["state"]) == (0, "succeeded")
    assert job["result"]["nodes"].keys() == {"node-0", "node-1", "node-2"}
    size_bytes = _size_bytes(hub, name)
    assert _weights_bytes(hub, name) == size_bytes
    assert _egress(three, name)["peer_bytes"] >= 2 * size_bytes


def test_kill_of_the_first_node_costs_the_hub_no_second_copy(
    three: Stack, hub: Hub, tmp_path: Path
) -> None:
    name = "acme/first-one-dies"
    _publish(hub, name, tmp_path / "model", 48 * 2**20)
    hub.reset_counts()
    with _limited(hub, 12e6):
        jobs = _prefetch(three, name, ["node-0"])
        hub.wait_for(origin="cdn", repository=name, sent_bytes=4 * 2**20)
        jobs += _prefetch(three, name, ["node-1", "node-2"])
        hub.wait_for(origin="cdn", repository=name, sent_bytes=24 * 2**20)
        psutil.Process(three.find_pid("node-0")).kill()
        _await(three, jobs)
    assert _weights_bytes(hub, name) <= 1.15 * _size_bytes(hub, name)
    assert len({_weights_in(cache, name) for cache in _caches(three)}) == 1


def test_peer_that_lies_is_named_and_another_one_gives_its_bytes(
    three: Stack, hub: Hub, tmp_path: Path
) -> None:
    name = "acme/one-peer-lies"
    _publish(hub, name, tmp_path / "model", 24 * 2**20)
    for node in ("node-0", "node-1"):
        _await(three, _prefetch(three, name, [node]))
    liar, honest, asking = _caches(three)
    _spoil(_find_weights(liar, name), 9 * 2**20)
    hub.reset_counts()
    (job,) = _prefetch(three, name, ["node-2"])
    _await(three, [job])
    assert _weights_in(asking, name) == _weights_in(honest, name)
    assert _weights_bytes(hub, name) == 0
    with three.client() as client:
        notes = [event.data for event in client.events(job) if event.type == "note"]
    assert [note["peer"] for note in notes] == ["node-0"]


def _caches(stack: Stack) -> list[Path]:
    rest = [stack.state_dir / "nodes" / f"node-{index}" / "hub" for index in (1, 2)]
    return [stack.cache_dir, *rest]


def _find_weights(cache: Path, name: str) -> Path:
    folder = cache / f"models--{name.replace('/', '--')}" / "snapshots"
    (found,) = folder.glob(f"*/{_WEIGHTS}")
    return found.resolve()


def _weights_in(cache: Path, name: str) -> str:
    return hashlib.sha256(_find_weights(cache, name).read_bytes()).hexdigest()


def _spoil(place: Path, position: int) -> None:
    """Another byte, and nothing by which it could be seen without reading."""
    seen = place.stat()
    with place.open("r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))
    os.utime(place, ns=(seen.st_atime_ns, seen.st_mtime_ns))
