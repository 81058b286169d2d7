"""G9: weights that are stored quantized, against the same weights quantized at the load."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measurements import (
    Broken,
    Chapter,
    Finding,
    Goal,
    Judged,
    Measurement,
    Row,
    Side,
    Unit,
)
from bench.quantized_llama import make_quantized_llama
from bench.random_llama import make_random_llama
from tests.services.hosts import (
    await_state,
    connect,
    make_spec,
    quantized,
    runtime_folder,
    store_snapshot,
)
from warmrack_store.resolution import QuantizationSource
from warmrack_workers.host_process import spawn
from warmrack_workers.host_spec import HostSpec, write_spec
from warmrack_workers.processes import kill, wait_end

_GOALS = {"nf4": 1 / 100, "int8": 1 / 15}
_STORED_LOADS = 3
_PROMPT = {"prompt": "The quick brown fox"}
_WAIT_SECONDS = 400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    weights_seconds: float
    ready_seconds: float
    logits: object


def measure() -> Iterator[Finding]:
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="warmrack-bench-") as folder:
        root = Path(folder)
        make_random_llama(root / "model")
        plain = store_snapshot(root / "model", root / "plain")
        for method in _GOALS:
            make_quantized_llama(root / "model", root / method, method)
            stored = store_snapshot(root / method, root / f"stored-{method}")
            yield from _compare(plain, stored, method, threads)


def _compare(plain: Path, stored: Path, method: str, threads: int) -> Iterator[Finding]:
    with runtime_folder() as runtime:
        spec = make_spec(plain, runtime, threads=threads)
        source = QuantizationSource.ON_THE_FLY
        made = [_load(quantized(spec, method, source, compute_dtype="bf16"))]
        spec = make_spec(stored, runtime, threads=threads)
        kept = [_load(quantized(spec, method, compute_dtype="bf16")) for _ in range(_STORED_LOADS)]
    if any(one.logits != made[0].logits for one in kept):
        yield Broken(what=f"{method}: equal logits", reason="stored and made weights answer apart")
        return
    yield Measurement(
        what=f"{method}: weights into memory, equal logits",
        ours=_side("stored quantized", [one.weights_seconds for one in kept]),
        against=_side("quantized at the load", [one.weights_seconds for one in made]),
        goal=Goal(judged=Judged.RATIO, limit=_GOALS[method]),
    )
    yield Measurement(
        what=f"{method}: the whole way to warm and proved",
        ours=_side("stored quantized", [one.ready_seconds for one in kept]),
        against=_side("quantized at the load", [one.ready_seconds for one in made]),
    )


def _load(spec: HostSpec) -> _Load:
    """A host as a node starts it, with its audit, asked once for logits."""
    path = spec.socket_path.with_suffix(".json")
    write_spec(spec, path)
    identity = spawn(spec, path)
    try:
        with connect(spec, timeout_seconds=120) as client:
            status = await_state(client, "warm", "gone", seconds=_WAIT_SECONDS)
            assert status["state"] == "warm", status["error"]
            answer = client.post("/tasks/forward", json=_PROMPT)
            assert answer.status_code == 200, answer.text
            return _Load(
                weights_seconds=status["timings"]["weights_seconds"],
                ready_seconds=status["timings"]["ready_seconds"],
                logits=answer.json(),
            )
    finally:
        kill(identity)
        wait_end(identity, 10)
        spec.socket_path.unlink(missing_ok=True)


def _side(name: str, samples: list[float]) -> Side:
    return Side(name=name, unit=Unit.SECONDS, samples=tuple(samples))


ROW = Row(
    name="G9",
    title="quantized weights from the cache",
    chapter=Chapter.WARM,
    limit_seconds=900,
    measure=measure,
    if_missed="bitsandbytes 0.50 makes nf4 of 1 GiB in about 13 s on two cores where earlier ones "
    "took a minute, and what is stored is read at the pace of the copy: the library moves packed "
    "weights through a state of its own instead of mapping them. Next: map the packed tensors, and "
    "keep what the pool has quantized.",
)
