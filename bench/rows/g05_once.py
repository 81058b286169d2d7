"""G5: a hundred clients ask for one model at once, and the Hub sends it once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from bench.measurements import Bound, Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub, running_hub
from tests.hub.models import get_model_folder

_MODEL = "bench/smollm2"
_CLIENTS = 100
_NODES = 4
_WAIT_SECONDS = 150.0
# The facts of a resolution are config.json and the headers of the weights, read by range from the
# same files: they are counted in full, and this is the room for them.
_FACTS_SHARE = 0.005


def measure() -> Iterator[Finding]:
    with (
        running_hub({_MODEL: get_model_folder("smollm2")}) as hub,
        running_stack(hub, nodes=_NODES) as stack,
    ):
        hub.reset_counts()
        waits, residents = _load_at_once(stack)
        with stack.client() as client:
            held = {one.id for one in client.residents() if one.model == _MODEL}
        yield _compare_bytes(hub)
    yield Measurement(
        what="residents after all have their model (those named by jobs, those alive)",
        ours=Side(name="residents", unit=Unit.COUNT, samples=(len(residents | held),)),
        goal=Goal(judged=Judged.OURS, limit=1),
    )
    yield Measurement(
        what="of each client: submit -> warm",
        ours=Side(name="clients", unit=Unit.SECONDS, samples=waits),
    )


def _load_at_once(stack: Stack) -> tuple[tuple[float, ...], set[str | None]]:
    """How long each client waited, and the residents that their jobs ended on."""
    together = Barrier(_CLIENTS, timeout=_WAIT_SECONDS)

    def load(_: int) -> tuple[float, str | None]:
        with stack.client() as client:
            together.wait()
            started = time.perf_counter()
            job = client.wait(client.load(_MODEL).id, timeout_seconds=_WAIT_SECONDS)
            return time.perf_counter() - started, job.resident

    with ThreadPoolExecutor(_CLIENTS) as threads:
        done = list(threads.map(load, range(_CLIENTS)))
    return tuple(seconds for seconds, _ in done), {resident for _, resident in done}


def _compare_bytes(hub: Hub) -> Measurement:
    size_bytes = sum(hub.get_commit(_MODEL).sizes_bytes.values())
    sent_bytes = hub.read_counts().file_bytes(repository=_MODEL)
    return Measurement(
        what=f"body bytes that the Hub sent for {_CLIENTS} clients on {_NODES} nodes, all reads of "
        "files counted, also those for facts (config.json, headers by range)",
        ours=Side(name="sent", unit=Unit.BYTES, samples=(sent_bytes,)),
        against=Side(name="size of the repository", unit=Unit.BYTES, samples=(size_bytes,)),
        goal=Goal(judged=Judged.RATIO, limit=1 + _FACTS_SHARE, bound=Bound.AT_MOST),
    )


ROW = Row(
    name="G5",
    title="once per cluster",
    chapter=Chapter.BYTES,
    limit_seconds=300,
    measure=measure,
)
