"""G6: a model in the cache becomes warm, against a fresh Python and a running server."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import warmrack
from bench.measurements import (
    Chapter,
    Finding,
    Goal,
    Judged,
    Measurement,
    Row,
    Side,
    Skipped,
    Unit,
)
from bench.peers.fresh_python import time_fresh_load
from bench.peers.missing import PeerMissing
from bench.peers.transformers_serve import TransformersServer, running_server
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import running_hub
from tests.hub.models import get_model_folder

_MODEL = "bench/smollm2"
_ROUNDS = 7
_WAIT_SECONDS = 90.0
_SERVER = "`transformers serve`, running, loads it"


@dataclass(slots=True, kw_only=True)
class _Samples:
    ours: list[float] = field(default_factory=list)
    row: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)


def measure() -> Iterator[Finding]:
    samples = _Samples()
    missing: PeerMissing | None = None
    with ExitStack() as parts:
        hub = parts.enter_context(running_hub({_MODEL: get_model_folder("smollm2")}))
        stack = parts.enter_context(running_stack(hub))
        client = parts.enter_context(stack.client())
        folder = _fill_cache(stack, client)
        server: TransformersServer | None = None
        try:
            server = parts.enter_context(running_server())
            server.time_load(folder)
            server.unload()
        except PeerMissing as error:
            missing = error
        for _ in range(_ROUNDS):
            _sample(samples, client, folder, server)
    yield from _judge(samples, missing)


def _fill_cache(stack: Stack, client: warmrack.Client) -> Path:
    """The snapshot's folder. The first load also waits for the nursery, and brings every side's
    files into the page cache and its modules to bytecode."""
    job = client.wait(client.load(_MODEL).id, timeout_seconds=_WAIT_SECONDS)
    client.unload(_MODEL)
    assert job.resolution is not None
    (folder,) = stack.cache_dir.glob(f"models--*/snapshots/{job.resolution.commit}")
    time_fresh_load(folder)
    return folder


def _sample(
    samples: _Samples, client: warmrack.Client, folder: Path, server: TransformersServer | None
) -> None:
    started = time.perf_counter()
    job = client.wait(client.load(_MODEL).id, timeout_seconds=_WAIT_SECONDS)
    samples.ours.append(time.perf_counter() - started)
    assert job.created_at is not None
    assert job.finished_at is not None
    samples.row.append((job.finished_at - job.created_at).total_seconds())
    client.unload(_MODEL)
    samples.fresh.append(time_fresh_load(folder))
    if server is not None:
        samples.served.append(server.time_load(folder))
        server.unload()


def _judge(samples: _Samples, missing: PeerMissing | None) -> Iterator[Finding]:
    ours = _side("load submitted -> warm", samples.ours)
    yield Measurement(
        what="load job submitted -> the client knows that the model is warm and proven",
        ours=ours,
        against=_side("fresh Python, `from_pretrained` of model and tokenizer", samples.fresh),
        goal=Goal(judged=Judged.RATIO, limit=0.2),
    )
    if missing is not None:
        yield Skipped(what=_SERVER, reason=str(missing))
    else:
        yield Measurement(
            what="the same",
            ours=ours,
            against=_side(_SERVER, samples.served),
            goal=Goal(judged=Judged.RATIO, limit=1.0),
        )
    yield Measurement(
        what="of it, by the job's row: created -> finished", ours=_side("row", samples.row)
    )


def _side(name: str, samples: list[float]) -> Side:
    return Side(name=name, unit=Unit.SECONDS, samples=tuple(samples))


ROW = Row(
    name="G6",
    title="from the cache to warm",
    chapter=Chapter.WARM,
    limit_seconds=400,
    measure=measure,
    if_missed="A server that has loaded before needs neither a process of its own nor a proof: "
    "tokenizer, weights and audit, one after another, are most of ours. Next: read the tokenizer "
    "while the weights are mapped and audited.",
)
