"""G16: what a resolution costs where all facts are known, and names by the catalog alone."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench.measurements import Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from tests.unit.lineages import BNB_4BIT, LLAMA_8B, model
from tests.unit.repositories import ref_of
from warmrack_store.catalog import load_catalog
from warmrack_store.database import Database, migrate
from warmrack_store.facts import RepositoryFacts
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import names, resolutions
from warmrack_store.refs import ModelRef
from warmrack_store.requests import LoadRequest, Mode, Network
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.compat import CompatRequest, answer
from warmrack_store.resolving import resolve_request

_ROUNDS = 200
_NAMES = 10_000
_NOBODY = "http://127.0.0.1:9"
"""No Hub: a resolution that asks one fails."""

_ASKED = model("meta-llama/Llama-3.1-8B-Instruct", LLAMA_8B)
_MIRROR = model(
    "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit",
    {**LLAMA_8B, "quantization_config": BNB_4BIT},
    stored="nf4",
)


def measure() -> Iterator[Finding]:
    yield Measurement(
        what="one exact request, its facts in memory (291 tensors)",
        ours=Side(name="resolve", unit=Unit.SECONDS, samples=tuple(_time_exact())),
        goal=Goal(judged=Judged.OURS, limit=0.002),
    )
    with tempfile.TemporaryDirectory(prefix="warmrack-bench-") as folder:
        for mode in (Mode.EXACT, Mode.OPTIMIZED):
            samples = tuple(_time_from_sql(Path(folder) / f"{mode.value}.db", mode))
            yield Measurement(
                what=f"one {mode.value} request, its facts in SQLite, no Hub asked",
                ours=Side(name="resolve", unit=Unit.SECONDS, samples=samples),
            )
    yield Measurement(
        what=f"{_NAMES} names of the catalog in mode compat:unsloth",
        ours=Side(name="all names", unit=Unit.SECONDS, samples=tuple(_time_names())),
        goal=Goal(judged=Judged.OURS, limit=1.0),
    )
    yield Measurement(
        what="names of the catalog that mode exact moves or quantizes",
        ours=Side(name="moved", unit=Unit.COUNT, samples=(_count_moved(),)),
        goal=Goal(judged=Judged.OURS, limit=0),
    )


def _time_exact() -> Iterator[float]:
    request = LoadRequest(model=_ASKED.repository)
    asked = Asked(ref=ref_of(_ASKED), facts=_ASKED)
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        resolve(request, asked, versions={})
        yield time.perf_counter() - started


def _time_from_sql(path: Path, mode: Mode) -> Iterator[float]:
    url = f"sqlite:///{path}"
    migrate(url)
    with closing(Database(url)) as database, closing(HubFacts(_NOBODY)) as hub:
        for facts in (_ASKED, _MIRROR):
            _put(database, facts)
        request = LoadRequest(
            model=_ASKED.repository, mode=mode, publishers=("unsloth",), network=Network.OFFLINE
        )
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            resolve_request(database, hub, request, None, versions={})
            yield time.perf_counter() - started


def _put(database: Database, facts: RepositoryFacts) -> None:
    with database.write() as tx:
        resolutions.put_facts(tx, facts)
        names.put_ref(tx, ModelRef(repository=facts.repository), ref_of(facts))


def _time_names() -> Iterator[float]:
    known = load_catalog().names()
    asked = [known[number % len(known)] for number in range(_NAMES)]
    for _ in range(5):
        started = time.perf_counter()
        for name in asked:
            answer(CompatRequest(model=name, mode=Mode.COMPAT_UNSLOTH))
        yield time.perf_counter() - started


def _count_moved() -> int:
    """Of what the batch interface answers: another name, or a quantization nobody asked for."""
    found = [answer(CompatRequest(model=name, mode=Mode.EXACT)) for name in load_catalog().names()]
    return sum(
        one.resolved != one.model or one.load_in_4bit or one.load_in_8bit or one.load_in_fp8
        for one in found
    )


ROW = Row(
    name="G16",
    title="resolution",
    chapter=Chapter.RESOLUTION,
    limit_seconds=120,
    measure=measure,
    if_missed="Most of it is the records' own checks; next: build the resolution once per commit "
    "and request, and keep it.",
)
