"""Which repository serves a request, and the reasons of those that do not."""

from typing import Any

import pytest

from tests.unit.repositories import LLAMA, make_facts, ref_of, tensor
from warmrack_store import errors
from warmrack_store.facts import RepositoryFacts
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Resolution, Substitution
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.candidates import (
    Candidate,
    Proposal,
    Provenance,
    list_proposals,
    propose,
)
from warmrack_store.resolver.pool import UNKNOWN, Pool

ASKED = "org/name"
MIRROR = "mirrors/name"


def asked_of(facts: RepositoryFacts) -> Asked:
    return Asked(ref=ref_of(facts), facts=facts)


def candidate(facts: RepositoryFacts, provenance: Provenance = Provenance.CATALOG) -> Candidate:
    proposal = Proposal(repository=facts.repository, provenance=provenance, evidence="a row")
    return Candidate(proposal=proposal, found=asked_of(facts))


def refused(repository: str, error: errors.Refusal) -> Candidate:
    proposal = Proposal(repository=repository, provenance=Provenance.CATALOG, evidence="a row")
    return Candidate(proposal=proposal, found=error)


def resolved(*candidates: Candidate, pool: Pool = UNKNOWN, **fields: Any) -> Resolution:
    request = LoadRequest(model=ASKED, **fields)
    asked = asked_of(make_facts(repository=ASKED))
    return resolve(request, asked, candidates, pool=pool, versions={})


def reasons(found: Resolution) -> dict[str, str]:
    return {one.repository: one.code for one in found.rejected}


def cached(facts: RepositoryFacts) -> Pool:
    return Pool(cached=frozenset({(facts.repository, facts.commit)}))


def test_exact_looks_at_no_candidate() -> None:
    found = resolved(candidate(make_facts(repository=MIRROR)), mode="exact")
    assert (found.repository, found.substitution) == (ASKED, Substitution.NONE)


def test_equivalent_prefers_a_cached_repository_with_the_same_files() -> None:
    mirror = make_facts(repository=MIRROR)
    found = resolved(candidate(mirror), mode="equivalent", pool=cached(mirror))
    assert (found.repository, found.substitution) == (MIRROR, Substitution.EQUIVALENT)
    assert reasons(found) == {ASKED: "ranked-lower"}


def test_equivalent_is_the_repository_itself_where_nothing_is_cached() -> None:
    found = resolved(candidate(make_facts(repository=MIRROR)), mode="equivalent")
    assert (found.repository, found.substitution) == (ASKED, Substitution.NONE)


def test_equivalent_refuses_another_file_unless_the_tensor_roots_are_equal() -> None:
    held = {"model.safetensors": (tensor("a"), tensor("b"))}
    mirror = make_facts(held, repository=MIRROR)
    files = tuple(
        file.model_copy(update={"sha256": "7" * 64}) if file.path in held else file
        for file in mirror.files
    )
    mirror = mirror.model_copy(update={"files": files})
    unknown = resolved(candidate(mirror), mode="equivalent", pool=cached(mirror))
    assert (unknown.repository, reasons(unknown)) == (ASKED, {MIRROR: "no-variant"})
    roots = {f"{name}@{mirror.commit}": "ab" * 32 for name in (ASKED, MIRROR)}
    proved = cached(mirror).model_copy(update={"roots": roots})
    served = resolved(candidate(mirror), mode="equivalent", pool=proved)
    assert served.repository == MIRROR
    lock: dict[str, Any] = {"lock": "require", "locked": served.lock()}
    again = resolved(candidate(mirror), mode="equivalent", pool=proved, **lock)
    assert again.repository == MIRROR
    with pytest.raises(errors.LockMismatch, match="not known to hold the same tensors"):
        resolved(candidate(mirror), mode="equivalent", **lock)


def test_equivalent_warns_of_other_files_than_weights_that_differ() -> None:
    mirror = make_facts(repository=MIRROR, others=("chat_template.jinja",))
    found = resolved(candidate(mirror), mode="equivalent", pool=cached(mirror))
    assert any("chat_template.jinja" in warning for warning in found.warnings)


def test_a_pinned_revision_rules_out_every_other_repository() -> None:
    mirror = make_facts(repository=MIRROR)
    found = resolved(candidate(mirror), mode="equivalent", revision="v1", pool=cached(mirror))
    assert (found.repository, reasons(found)) == (ASKED, {MIRROR: "revision-does-not-apply"})


def test_another_model_is_rejected_by_its_lineage() -> None:
    other = make_facts(repository=MIRROR, config={**LLAMA, "hidden_size": 128})
    found = resolved(candidate(other), mode="equivalent", pool=cached(other))
    assert reasons(found) == {MIRROR: "lineage-mismatch"}


def test_a_candidate_that_the_caller_may_not_read_is_rejected_by_the_hubs_reason() -> None:
    found = resolved(refused(MIRROR, errors.Gated("no")), mode="equivalent")
    assert reasons(found) == {MIRROR: "gated"}


@pytest.mark.parametrize(
    ("publishers", "kept"),
    [((), ["org/a"]), (("mirrors",), ["mirrors/b"]), (("*",), ["mirrors/b", "org/a"])],
)
def test_only_allowed_publishers_supply_a_substitute(
    publishers: tuple[str, ...], kept: list[str]
) -> None:
    proposals = [
        Proposal(repository=name, provenance=Provenance.HUB, evidence="")
        for name in ("org/a", "mirrors/b", "ORG/Name", "Org/A")
    ]
    request = LoadRequest(model=ASKED, mode="optimized", publishers=publishers)
    found, rejected = propose(request, ASKED, proposals)
    assert sorted(one.repository.lower() for one in found) == kept
    assert {one.code for one in rejected} <= {"publisher-not-allowed"}


@pytest.mark.parametrize(
    ("model_type", "served"),
    [
        ("llama", "unsloth/Llama-3.1-8B-Instruct-FP8-Block"),
        ("gemma3", "unsloth/Meta-Llama-3.1-8B-Instruct"),
    ],
)
def test_compat_proposes_what_unsloth_loads_for_a_type_that_it_knows_or_hands_on(
    model_type: str, served: str
) -> None:
    name = "meta-llama/Meta-Llama-3.1-8B-Instruct"
    request = LoadRequest(model=name, mode="compat:unsloth", precision="fp8")
    (one,) = list_proposals(request, name, children=(), equals=(), model_type=model_type)
    assert one.repository == served
