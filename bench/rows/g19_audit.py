"""G19: the full audit of a loaded model of about 1 GiB, against sha256 of its file."""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.measurements import Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from bench.random_llama import make_random_llama
from tests.services.hosts import await_state, connect, make_spec, runtime_folder, store_snapshot
from warmrack_workers.host_process import spawn
from warmrack_workers.host_spec import HostSpec, write_spec
from warmrack_workers.processes import kill, wait_end

_HOSTS = 3
_AUDITS_A_HOST = 3
_WEIGHTS = "model.safetensors"
_LIMIT = 0.25


@dataclass(slots=True, kw_only=True)
class _Samples:
    after_load: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    sha256: list[float] = field(default_factory=list)


def measure() -> Iterator[Finding]:
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="warmrack-bench-") as root, runtime_folder() as runtime:
        make_random_llama(Path(root) / "model")
        snapshot = store_snapshot(Path(root) / "model", Path(root) / "cache")
        many, one = _Samples(), _Samples()
        _sample(many, make_spec(snapshot, runtime, threads=threads))
        _sample(one, make_spec(snapshot, runtime, threads=1))
    yield from _judge(many, one, threads)


def _sample(samples: _Samples, spec: HostSpec) -> None:
    """A host as a node starts it: its own audit after the load, then the same audit again."""
    path = spec.socket_path.with_suffix(".json")
    for _ in range(_HOSTS):
        write_spec(spec, path)
        identity = spawn(spec, path)
        try:
            with connect(spec, timeout_seconds=120) as client:
                status = await_state(client, "warm", "gone", seconds=120)
                assert status["state"] == "warm", status["error"]
                samples.after_load.append(status["timings"]["audit_seconds"])
                for _ in range(_AUDITS_A_HOST):
                    samples.sha256.append(_time_sha256(spec.snapshot_dir / _WEIGHTS))
                    answer = client.post("/audit").json()
                    assert all(tensor["equal"] for tensor in answer["tensors"])
                    samples.again.append(answer["seconds"])
        finally:
            kill(identity)
            wait_end(identity, 10)
            spec.socket_path.unlink(missing_ok=True)


def _time_sha256(path: Path) -> float:
    started = time.perf_counter()
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    return time.perf_counter() - started


def _judge(many: _Samples, one: _Samples, threads: int) -> Iterator[Finding]:
    goal = Goal(judged=Judged.RATIO, limit=_LIMIT)
    against = _side("sha256 of the file, in the page cache", many.sha256)
    yield Measurement(
        what="all checks and every leaf of a warm model",
        ours=_side(f"audit again, {threads} threads", many.again),
        against=against,
        goal=goal,
    )
    yield Measurement(
        what="the same right after the load, which is the first to touch the mapped weights",
        ours=_side(f"audit after the load, {threads} threads", many.after_load),
        against=against,
        goal=goal,
    )
    yield Measurement(
        what="a warm model on one thread",
        ours=_side("audit again, 1 thread", one.again),
        against=_side("sha256 of the file, in the page cache", one.sha256),
    )


def _side(name: str, samples: list[float]) -> Side:
    return Side(name=name, unit=Unit.SECONDS, samples=tuple(samples))


ROW = Row(
    name="G19",
    title="the audit of a model in memory",
    chapter=Chapter.WARM,
    limit_seconds=400,
    measure=measure,
    if_missed="Nearly all of it is hashing, and the ratio is the processor's: with AVX-512 a core "
    "hashes BLAKE3 about 4x as fast as sha256, with AVX2 beside SHA instructions only 2.2x; the "
    "rest must come from a second core that is free. To hash less would be to prove less.",
)
