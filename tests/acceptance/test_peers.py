"""Nodes read from one another what the Hub sends once, also while it arrives and while some die."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub
from tests.hub.faults import Origin, Rate
from tests.hub.models import get_model_folder

_WEIGHTS = "model.safetensors"
_PIECE_BYTES = 4 * 2**20


def _publish(hub: Hub, name: str, folder: Path, size_bytes: int) -> None:
    """A repository whose weights have bytes like no others, and so many more than tiny_llama's."""
    shutil.copytree(get_model_folder("tiny_llama"), folder)
    data = (folder / _WEIGHTS).read_bytes()
    filling = np.random.default_rng(len(name)).integers(0, 256, size_bytes, dtype=np.uint8)
    tensors = {**load(data), "unused.filling": filling}
    (folder / _WEIGHTS).unlink()
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


def test_nodes_that_fetch_at_once_cost_the_hub_one_copy(hub: Hub, tmp_path: Path) -> None:
    name = "acme/fetched-by-three"
    _publish(hub, name, tmp_path / "model", 40 * 2**20)
    with running_stack(hub, nodes=3) as stack, _limited(hub, 20e6):
        hub.reset_counts()
        _await(stack, _prefetch(stack, name, ["node-0", "node-1", "node-2"]))
        size_bytes = _size_bytes(hub, name)
        assert _weights_bytes(hub, name) == size_bytes
        assert _egress(stack, name)["peer_bytes"] >= 2 * size_bytes
