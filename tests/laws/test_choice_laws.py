"""Laws of the choice among repositories, in every mode."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.lineages import BNB_4BIT, QWEN2_1B, model
from tests.unit.repositories import ref_of
from warmrack_store.database import Database, migrate
from warmrack_store.errors import Contradiction, Gated, HubUnavailable, OfflineMiss, WarmrackError
from warmrack_store.facts import RepositoryFacts
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import names, resolutions
from warmrack_store.refs import ModelRef
from warmrack_store.requests import LoadRequest, Mode
from warmrack_store.resolution import QuantizationSource, Resolution
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.candidates import Candidate, Proposal, Provenance
from warmrack_store.resolver.pool import Pool
from warmrack_store.resolving import resolve_request

on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ASKED = "Qwen/Qwen2-1.5B-Instruct"
CONFIG = QWEN2_1B | {"num_hidden_layers": 1, "vocab_size": 1024}
NF4 = CONFIG | {"quantization_config": BNB_4BIT}
PLAIN = model(ASKED, CONFIG)
OTHERS = (
    model("unsloth/Qwen2-1.5B-Instruct-bnb-4bit", NF4, stored="nf4"),
    model("unsloth/qwen2-1.5b-instruct-unsloth-bnb-4bit", NF4, stored="nf4"),
    model("unsloth/Qwen2-1.5B-Instruct", CONFIG),
    model("other/Qwen2-1.5B", NF4, stored="nf4"),
    model("other/Qwen2-1.5B-Instruct-wide", {**NF4, "hidden_size": 3072}, stored="nf4"),
)

subsets = st.sets(st.sampled_from(range(len(OTHERS))))
pools = st.sampled_from([2**20, 2**29, 2**34]).map(lambda size: Pool(budgets={"n/cpu:0": size}))
requests = st.fixed_dictionaries(
    {
        "mode": st.sampled_from([mode.value for mode in Mode]),
        "precision": st.sampled_from(["checkpoint", "bf16", "fp32", "nf4", "int8", "fp8"]),
        "quantize": st.sampled_from([None, "any", "never", "prequantized", "on_the_fly"]),
        "revision": st.sampled_from([None, "v1"]),
    }
)


def candidate(facts: RepositoryFacts) -> Candidate:
    proposal = Proposal(
        repository=facts.repository, provenance=Provenance.CATALOG, evidence="a row"
    )
    return Candidate(proposal=proposal, found=Asked(ref=ref_of(facts), facts=facts))


def attempt(
    fields: dict[str, Any], candidates: list[Candidate], pool: Pool
) -> Resolution | WarmrackError:
    asked = Asked(ref=ref_of(PLAIN), facts=PLAIN)
    try:
        request = LoadRequest(model=ASKED, **fields)
        return resolve(request, asked, candidates, pool=pool, versions={})
    except WarmrackError as error:
        return error


@on_a_busy_machine
@given(requests, subsets, pools)
def test_every_mode_gives_a_resolution_or_a_typed_error(
    fields: dict[str, Any], chosen: set[int], pool: Pool
) -> None:
    found = attempt(fields, [candidate(OTHERS[n]) for n in sorted(chosen)], pool)
    if isinstance(found, Resolution):
        assert Resolution.model_validate_json(found.model_dump_json()) == found
        assert [line.rule for line in found.trail] == [f"R{number}" for number in range(10)]
    else:
        assert found.code != "defect"


@on_a_busy_machine
@given(requests, subsets, subsets, pools)
def test_losing_a_right_never_gives_more(
    fields: dict[str, Any], chosen: set[int], lost: set[int], pool: Pool
) -> None:
    before = [candidate(OTHERS[n]) for n in sorted(chosen)]
    after = [
        replace(one, found=Gated("no")) if n in lost else one
        for n, one in zip(sorted(chosen), before, strict=True)
    ]
    more, fewer = attempt(fields, before, pool), attempt(fields, after, pool)
    if isinstance(fewer, Resolution):
        assert isinstance(more, Resolution)
        gone = {OTHERS[n].repository for n in chosen & lost}
        assert fewer.repository not in gone


@on_a_busy_machine
@given(requests, subsets, pools)
def test_no_stand_in_is_another_model(fields: dict[str, Any], chosen: set[int], pool: Pool) -> None:
    found = attempt(fields, [candidate(OTHERS[n]) for n in sorted(chosen)], pool)
    if isinstance(found, Resolution):
        assert not found.repository.startswith("other/")


@on_a_busy_machine
@given(requests, pools)
def test_the_order_of_the_candidates_does_not_matter(fields: dict[str, Any], pool: Pool) -> None:
    for order in list(permutations(OTHERS[:3]))[:3]:
        found = attempt(fields, [candidate(facts) for facts in order], pool)
        first = attempt(fields, [candidate(facts) for facts in OTHERS[:3]], pool)
        assert type(found) is type(first)
        if isinstance(found, Resolution) and isinstance(first, Resolution):
            assert (found.repository, found.cache_key) == (first.repository, first.cache_key)


@on_a_busy_machine
@given(requests, subsets, pools)
def test_what_was_resolved_is_itself_when_asked_exactly(
    fields: dict[str, Any], chosen: set[int], pool: Pool
) -> None:
    found = attempt(fields, [candidate(OTHERS[n]) for n in sorted(chosen)], pool)
    if not isinstance(found, Resolution):
        return
    made = found.quantization is not None
    made = made and found.quantization.source is QuantizationSource.ON_THE_FLY  # type: ignore[union-attr]
    if made or found.cast is not None:
        return
    (facts,) = [one for one in (PLAIN, *OTHERS) if one.repository == found.repository]
    request = LoadRequest(model=f"{found.repository}@{found.commit}")
    again = resolve(request, Asked(ref=ref_of(facts), facts=facts), versions={})
    assert again.cache_key == found.cache_key


def test_every_process_and_hash_seed_resolves_alike() -> None:
    digests = {_resolve_in_process(seed) for seed in ("0", "1", "4242")}
    assert len(digests) == 1


def _resolve_in_process(seed: str) -> str:
    program = (
        "from tests.laws.test_choice_laws import *\n"
        "found = [attempt({'mode': mode, 'publishers': ('*',)}, [candidate(o) for o in OTHERS],"
        " Pool(budgets={'n/cpu:0': 2**29})) for mode in Mode]\n"
        "from warmrack_store.records import digest_json\n"
        "print(digest_json([one.model_dump(mode='json') if isinstance(one, Resolution)"
        " else one.to_record() for one in found]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A database that knows all of the repositories, as after a day of loads."""
    url = f"sqlite:///{tmp_path_factory.mktemp('laws') / 'known.db'}"
    migrate(url)
    database = Database(url)
    with database.write() as tx:
        for facts in (PLAIN, *OTHERS):
            resolutions.put_facts(tx, facts)
            names.put_ref(tx, ModelRef(repository=facts.repository), ref_of(facts))
    return database


@on_a_busy_machine
@given(requests, st.sampled_from([ASKED, ASKED.upper(), "nobody/knows"]))
def test_offline_asks_the_hub_nothing(known: Database, fields: dict[str, Any], name: str) -> None:
    found = attempt_offline(known, name, fields)
    if isinstance(found, Resolution):
        assert (found.commit, name.lower()) == (PLAIN.commit, ASKED.lower())
    else:
        assert found.code != HubUnavailable.code
        assert name != "nobody/knows" or found.code in {OfflineMiss.code, Contradiction.code}


def attempt_offline(
    known: Database, name: str, fields: dict[str, Any]
) -> Resolution | WarmrackError:
    """With a Hub that nobody listens at: whoever asks it is told that it does not answer."""
    hub = HubFacts("http://127.0.0.1:9", timeout_seconds=0.2)
    try:
        request = LoadRequest(model=name, network="offline", publishers=("*",), **fields)
        return resolve_request(known, hub, request, None, versions={})
    except WarmrackError as error:
        return error
    finally:
        hub.close()
