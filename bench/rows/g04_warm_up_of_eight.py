"""G4: one model onto eight nodes, from a Hub that sends no faster than one node could take it."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import load, save

from bench.measurements import Bound, Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from bench.peers.stock_download import StockDownloads
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub, running_hub
from tests.hub.faults import Origin, Rate
from tests.hub.models import get_model_folder

_MODEL = "bench/onto-eight"
_WEIGHTS = "model.safetensors"
_NODES = 8
_SIZE_BYTES = 256 * 2**20
_BYTES_PER_SECOND = 8e6
"""Slow enough that eight nodes that hash, send and receive all of it have room on two cores: at
12e6 their cores, not the chain, added 0.21 of a transfer; with two nodes it was 0.05."""
_WAIT_SECONDS = 240.0
_QUIET_SECONDS = 1.0
_QUIET_SHARE = 0.25
"""Of one core, over all processes of the stack."""


def measure() -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="warmrack-bench-") as name, running_hub() as hub:
        folder = Path(name)
        size_bytes = _publish(hub, folder / "model")
        with running_stack(hub, nodes=_NODES, devices="cpu:0=1GiB") as stack, _limited(hub):
            _await_quiet(stack)
            hub.reset_counts()
            seconds = _prefetch_onto_all(stack)
            sent_bytes = _count_weights(hub)
        with _limited(hub):
            stock_seconds = _download_eight_times(hub, folder)
    yield from _compare(size_bytes, seconds, sent_bytes, stock_seconds)


def _compare(
    size_bytes: int, seconds: float, sent_bytes: int, stock_seconds: float
) -> Iterator[Finding]:
    ours = Side(name="submit -> on all eight", unit=Unit.SECONDS, samples=(seconds,))
    stock = Side(name="8 x stock download", unit=Unit.SECONDS, samples=(stock_seconds,))
    ideal = Side(name="one transfer", unit=Unit.SECONDS, samples=(size_bytes / _BYTES_PER_SECOND,))
    yield Measurement(
        what=f"{size_bytes >> 20} MiB onto {_NODES} nodes, against as many stock downloads at once",
        ours=ours,
        against=stock,
        goal=Goal(judged=Judged.RATIO, limit=1 / 7),
    )
    yield Measurement(
        what="the same, against the time of one transfer at the Hub's rate",
        ours=ours,
        against=ideal,
        goal=Goal(judged=Judged.RATIO, limit=1.15),
    )
    yield Measurement(
        what="body bytes of the weights that the Hub sent, less the read of their header for facts",
        ours=Side(name="sent", unit=Unit.BYTES, samples=(sent_bytes,)),
        against=Side(name="size", unit=Unit.BYTES, samples=(size_bytes,)),
        goal=Goal(judged=Judged.RATIO, limit=1.0, bound=Bound.AT_MOST),
    )


def _publish(hub: Hub, folder: Path) -> int:
    """A model with weights of that size; their size in bytes."""
    folder.mkdir()
    for file in get_model_folder("tiny_llama").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    filling = np.random.default_rng(4).integers(0, 256, _SIZE_BYTES, dtype=np.uint8)
    tensors = {**load((folder / _WEIGHTS).read_bytes()), "unused.filling": filling}
    (folder / _WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
    hub.add_repository(_MODEL, folder)
    return (folder / _WEIGHTS).stat().st_size


@contextmanager
def _limited(hub: Hub) -> Iterator[None]:
    number = hub.add_fault(
        Rate(bytes_per_second=_BYTES_PER_SECOND), path=_WEIGHTS, origin=Origin.CDN
    )
    try:
        yield
    finally:
        hub.clear_faults(number)


def _await_quiet(stack: Stack) -> None:
    """Until the nurseries have imported torch, as those of a pool that is up have: eight of them
    on one machine take longer for it than the model takes to come."""
    before = _cpu_seconds(stack)
    for _ in range(int(_WAIT_SECONDS / _QUIET_SECONDS)):
        time.sleep(_QUIET_SECONDS)
        now = _cpu_seconds(stack)
        if now - before < _QUIET_SHARE * _QUIET_SECONDS:
            return
        before = now
    raise TimeoutError(f"the stack was not quiet within {_WAIT_SECONDS:g} s")


def _cpu_seconds(stack: Stack) -> float:
    total = 0.0
    for process in stack.list_processes():
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:2])
    return total


def _prefetch_onto_all(stack: Stack) -> float:
    with stack.client() as client:
        started = time.perf_counter()
        job = client.prefetch(_MODEL, nodes="all")
        client.wait(job.id, timeout_seconds=_WAIT_SECONDS)
        return time.perf_counter() - started


def _count_weights(hub: Hub) -> int:
    seen = hub.list_requests(repository=_MODEL, traffic="file", origin="cdn")
    return sum(one.sent_bytes for one in seen if one.range != "bytes=0-99999")


def _download_eight_times(hub: Hub, folder: Path) -> float:
    downloads = StockDownloads(_NODES, endpoint=hub.url, model=_MODEL, folder=folder)
    started = time.perf_counter()
    downloads.run()
    return time.perf_counter() - started


ROW = Row(
    name="G4",
    title="warm-up of eight nodes",
    chapter=Chapter.BYTES,
    limit_seconds=600,
    measure=measure,
)
