"""What each mode makes of a large model, its 4-bit mirrors and a pool that is too small."""

from typing import Any

import pytest

from tests.unit.lineages import BNB_4BIT, LLAMA_8B, model
from tests.unit.repositories import ref_of
from warmrack_store import errors
from warmrack_store.facts import RepositoryFacts
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import QuantizationSource, Resolution, Substitution
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.candidates import Candidate, Proposal, Provenance
from warmrack_store.resolver.pool import UNKNOWN, Pool

NAME = "meta-llama/Llama-3.1-8B-Instruct"
FOUR_BIT = "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"
SMALL = Pool(budgets={"node-0/cpu:0": 8 * 2**30})
LARGE = Pool(budgets={"node-0/cpu:0": 8 * 2**30, "node-1/cpu:0": 64 * 2**30})

PLAIN = model(NAME, LLAMA_8B)
QUANTIZED = model(FOUR_BIT, {**LLAMA_8B, "quantization_config": BNB_4BIT}, stored="nf4")


def candidate(facts: RepositoryFacts, provenance: Provenance = Provenance.CATALOG) -> Candidate:
    proposal = Proposal(repository=facts.repository, provenance=provenance, evidence="a row")
    return Candidate(proposal=proposal, found=Asked(ref=ref_of(facts), facts=facts))


def resolved(*others: RepositoryFacts, pool: Pool = UNKNOWN, **fields: Any) -> Resolution:
    request = LoadRequest(model=NAME, **fields)
    asked = Asked(ref=ref_of(PLAIN), facts=PLAIN)
    return resolve(request, asked, [candidate(one) for one in others], pool=pool, versions={})


def test_optimized_prefers_stored_four_bits_over_those_made_at_the_load() -> None:
    found = resolved(QUANTIZED, mode="optimized")
    assert (found.repository, found.substitution) == (FOUR_BIT, Substitution.QUANTIZED)
    assert found.quantization is not None
    assert found.quantization.source is QuantizationSource.STORED
    assert [(one.repository, one.code) for one in found.rejected] == [(NAME, "ranked-lower")]


def test_optimized_without_any_variant_quantizes_the_repository_itself() -> None:
    found = resolved(mode="optimized")
    assert (found.repository, found.precision) == (NAME, "nf4")
    assert found.substitution is Substitution.QUANTIZED
    assert found.quantization is not None
    assert found.quantization.source is QuantizationSource.ON_THE_FLY


def test_optimized_prequantized_only_says_why_each_candidate_cannot() -> None:
    other = model(FOUR_BIT, {**LLAMA_8B, "hidden_size": 2048}, stored="nf4")
    with pytest.raises(errors.NoVariant) as raised:
        resolved(other, mode="optimized", precision="nf4", quantize="prequantized")
    assert NAME in raised.value.message
    assert "hidden size" in raised.value.message


def test_optimized_serves_another_precision_than_the_mirror_has_from_the_original() -> None:
    found = resolved(QUANTIZED, mode="optimized", precision="int8")
    assert (found.repository, found.precision) == (NAME, "int8")
    assert {one.code for one in found.rejected} == {"quant-mismatch"}


def test_quantize_never_excludes_weights_that_are_quantized_already() -> None:
    found = resolved(QUANTIZED, mode="optimized", quantize="never")
    assert (found.repository, found.precision, found.quantization) == (NAME, "bf16", None)
    assert [(one.repository, one.code) for one in found.rejected] == [(FOUR_BIT, "no-variant")]


def test_a_pinned_revision_is_never_dropped_for_a_mirror() -> None:
    found = resolved(QUANTIZED, mode="optimized", revision="v1")
    assert found.repository == NAME
    assert {one.code for one in found.rejected} == {"revision-does-not-apply"}
    with pytest.raises(errors.RevisionDoesNotApply):
        resolved(
            QUANTIZED, mode="optimized", revision="v1", precision="nf4", quantize="prequantized"
        )


def test_auto_is_exact_where_the_largest_device_holds_it() -> None:
    found = resolved(QUANTIZED, mode="auto", pool=LARGE)
    assert (found.repository, found.substitution) == (NAME, Substitution.NONE)
    assert found.precision == "bf16"


def test_auto_is_the_best_variant_that_fits_where_exact_does_not() -> None:
    found = resolved(QUANTIZED, mode="auto", pool=SMALL)
    assert (found.repository, found.precision) == (FOUR_BIT, "nf4")


def test_auto_quantizes_the_model_itself_where_nothing_else_stands_for_it() -> None:
    found = resolved(mode="auto", pool=SMALL)
    assert (found.repository, found.precision) == (NAME, "nf4")


def test_auto_names_the_smallest_where_nothing_fits() -> None:
    tiny = Pool(budgets={"node-0/cpu:0": 2**30})
    with pytest.raises(errors.WontFit, match="nf4"):
        resolved(QUANTIZED, mode="auto", pool=tiny)


def test_the_choice_does_not_depend_on_the_order_of_the_candidates() -> None:
    twin = QUANTIZED.model_copy(update={"repository": "unsloth/A-Llama-3.1-8B-Instruct-bnb-4bit"})
    one = resolved(QUANTIZED, twin, mode="optimized")
    other = resolved(twin, QUANTIZED, mode="optimized")
    assert one.repository == other.repository == twin.repository


def test_compat_loads_the_mirror_that_unsloth_would_and_says_so() -> None:
    found = resolved(QUANTIZED, mode="compat:unsloth", revision="v1")
    assert (found.repository, found.substitution) == (FOUR_BIT, Substitution.QUANTIZED)
    assert any("v1 is dropped" in warning for warning in found.warnings)
    assert ("redirected", NAME) in [(one.code, one.repository) for one in found.rejected]


def test_compat_refuses_a_mirror_that_is_another_model() -> None:
    other = model(FOUR_BIT, {**LLAMA_8B, "num_hidden_layers": 16}, stored="nf4")
    with pytest.raises(errors.LineageMismatch):
        resolved(other, mode="compat:unsloth")


def test_a_locked_mirror_is_served_although_the_original_would_fit_now() -> None:
    locked = resolved(QUANTIZED, mode="auto", pool=SMALL).lock()
    found = resolved(QUANTIZED, mode="auto", pool=LARGE, lock="require", locked=locked)
    assert found.repository == FOUR_BIT
    assert found.lock() == locked


def test_a_locked_file_with_other_bytes_is_a_mismatch_by_name() -> None:
    locked = resolved(mode="exact").lock()
    file = locked.files[0].model_copy(update={"sha256": "0" * 64})
    changed = locked.model_copy(update={"files": (file, *locked.files[1:])})
    with pytest.raises(errors.LockMismatch, match=file.path):
        resolved(mode="exact", lock="require", locked=changed)


def test_no_lock_makes_an_exact_request_another_repositorys() -> None:
    mirror = model("mirror/Llama-3.1-8B-Instruct", LLAMA_8B)
    locked = resolved(mode="exact").lock().model_copy(update={"repository": mirror.repository})
    with pytest.raises(errors.LockMismatch, match="now there is bf16 from meta-llama"):
        resolved(mirror, mode="exact", lock="require", locked=locked)


def test_a_commit_that_the_request_names_is_not_given_up_for_the_locked_one() -> None:
    locked = resolved(mode="exact").lock()
    assert resolved(revision=locked.commit, lock="require", locked=locked).commit == locked.commit
    with pytest.raises(errors.LockMismatch, match=r"asked for at f{40}, and locked at"):
        resolved(revision="f" * 40, lock="require", locked=locked)


def test_the_only_reason_comes_with_its_own_way_out() -> None:
    with pytest.raises(errors.DeviceUnsupported) as alone:
        resolved(mode="optimized", precision="fp8", quantize="on_the_fly")
    assert alone.value.hint != errors.DeviceUnsupported.hint
