"""What the tensors in memory will be, for every kind of repository and every precision."""

from typing import Any

import pytest

from tests.unit.repositories import LLAMA, make_facts, ref_of, tensor
from warmrack_store import errors
from warmrack_store.facts import RepositoryFacts
from warmrack_store.requests import LoadRequest, Quantize
from warmrack_store.resolution import Quantization, QuantizationSource, Substitution
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.resolver.precision import PrecisionPlan, plan_precision

NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
    "llm_int8_skip_modules": ["lm_head", "vision_tower"],
}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": None}


def plain(*dtypes: str) -> RepositoryFacts:
    held = tuple(tensor(f"t{n}", dtype=dtype) for n, dtype in enumerate(dtypes or ("BF16",)))
    return make_facts({"model.safetensors": held})


def quantized(declaration: dict[str, Any], *held: Any) -> RepositoryFacts:
    tensors = held or (tensor("a"), tensor("b.weight", dtype="U8"))
    config = LLAMA | {"quantization_config": declaration}
    return make_facts({"model.safetensors": tensors}, config=config)


ON_THE_FLY: dict[str, Any] = {
    "mode": "optimized",
    "precision": "nf4",
    "quantize": "on_the_fly",
}


def asked(facts: RepositoryFacts) -> Asked:
    return Asked(ref=ref_of(facts), facts=facts)


def plan(facts: RepositoryFacts, **fields: Any) -> PrecisionPlan:
    return plan_precision(LoadRequest(model="org/name", **fields), facts, facts.weights)


def test_a_plain_checkpoint_is_served_as_it_is_stored() -> None:
    assert plan(plain("F16")) == PrecisionPlan(precision="fp16")
    assert plan(plain("F16")).backend == "exact"
    assert plan(plain("BF16", "F32")).precision == "mixed"


@pytest.mark.parametrize(("precision", "stored"), [("bf16", "F32"), ("fp16", "BF16")])
def test_another_float_precision_is_a_declared_cast_in_mode_exact_too(
    precision: str, stored: str
) -> None:
    assert plan(plain(stored), precision=precision) == PrecisionPlan(
        precision=precision, cast=precision
    )


def test_the_stored_float_precision_needs_no_cast_and_a_mixed_checkpoint_does() -> None:
    assert plan(plain("BF16", "I64"), precision="bf16").cast is None
    assert plan(plain("BF16", "F32"), precision="bf16").cast == "bf16"


def test_a_checkpoint_that_is_nf4_already_is_served_as_stored() -> None:
    found = plan(quantized(NF4))
    assert found.quantization == Quantization(
        method="nf4",
        source=QuantizationSource.STORED,
        compute_dtype="bf16",
        skipped=("lm_head", "vision_tower"),
    )
    assert (found.precision, found.cast, found.backend) == ("nf4", None, "bnb")
    assert plan(quantized(NF4), precision="nf4") == found


def test_a_checkpoint_that_is_int8_already_computes_in_its_own_float() -> None:
    scale = tensor("b.SCB", (4096,), dtype="F32")
    found = plan(quantized(INT8, tensor("a", dtype="F16"), scale), precision="int8")
    assert found.quantization is not None
    assert (found.precision, found.quantization.compute_dtype) == ("int8", "fp16")
    assert found.quantization.source is QuantizationSource.STORED


@pytest.mark.parametrize(
    ("declaration", "named"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "awq 4 bits"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        (NF4 | {"bnb_4bit_quant_type": "fp4"}, "bitsandbytes fp4"),
        (NF4 | {"bnb_4bit_quant_storage": "bfloat16"}, "bitsandbytes nf4"),
        (INT8 | {"llm_int8_has_fp16_weight": True}, "bitsandbytes"),
    ],
)
def test_other_quantizations_are_refused_by_their_name(
    declaration: dict[str, Any], named: str
) -> None:
    with pytest.raises(errors.NotSupported, match=named):
        plan(quantized(declaration))


def test_a_declaration_where_the_library_does_not_read_it_is_refused() -> None:
    facts = make_facts(config=LLAMA | {"text_config": {"quantization_config": NF4}})
    with pytest.raises(errors.NotSupported, match="text part"):
        plan(facts)


def test_a_float_precision_of_a_quantized_checkpoint_is_another_quantization() -> None:
    with pytest.raises(errors.QuantMismatch, match="stored as nf4, not as precision bf16"):
        plan(quantized(NF4), precision="bf16")


def test_exact_with_a_quantization_that_the_checkpoint_lacks_names_both_ways_out() -> None:
    for facts in (plain(), quantized(INT8)):
        with pytest.raises(errors.Contradiction, match="mode exact excludes precision nf4") as it:
            plan(facts, precision="nf4")
        assert "mode optimized" in it.value.hint
        assert "precision checkpoint" in it.value.hint


def test_another_stored_quantization_than_asked_is_a_mismatch_outside_mode_exact() -> None:
    with pytest.raises(errors.QuantMismatch, match="stored as int8"):
        plan(quantized(INT8), mode="optimized", precision="nf4")


@pytest.mark.parametrize("quantize", [None, Quantize.ANY, Quantize.ON_THE_FLY])
@pytest.mark.parametrize(("stored", "computed"), [("F32", "fp32"), ("BF16", "bf16")])
def test_a_plain_checkpoint_is_quantized_at_the_load_where_the_request_lets_it_be(
    quantize: Quantize | None, stored: str, computed: str
) -> None:
    found = plan(plain(stored), mode="optimized", precision="int8", quantize=quantize)
    assert found.quantization == Quantization(
        method="int8", source=QuantizationSource.ON_THE_FLY, compute_dtype=computed
    )
    assert (found.precision, found.backend) == ("int8", "bnb")


def test_a_plain_checkpoint_is_no_variant_where_only_prequantized_ones_are_wanted() -> None:
    with pytest.raises(errors.NoVariant, match="stored unquantized"):
        plan(plain(), mode="optimized", precision="nf4", quantize="prequantized")


def test_never_quantizing_contradicts_a_quantized_precision() -> None:
    with pytest.raises(errors.Contradiction, match="quantize never excludes precision nf4"):
        plan(plain(), mode="optimized", precision="nf4", quantize="never")


def test_weights_stored_quantized_are_not_quantized_on_the_fly() -> None:
    with pytest.raises(errors.QuantMismatch, match="on_the_fly starts from"):
        plan(quantized(NF4), mode="optimized", precision="nf4", quantize="on_the_fly")


def test_eight_bit_floats_run_on_no_device_here() -> None:
    stored = quantized({"quant_method": "fp8"})
    with pytest.raises(errors.DeviceUnsupported, match="fp8"):
        plan(plain(), mode="optimized", precision="fp8")
    with pytest.raises(errors.DeviceUnsupported, match="fp8"):
        plan(stored, precision="fp8")
    with pytest.raises(errors.NotSupported, match="fp8"):
        plan(stored)


def test_the_trail_says_what_happens_to_the_tensors() -> None:
    assert plan(plain()).describe() == "bf16, no conversion"
    assert plan(plain(), precision="fp16").describe() == "fp16, the float tensors are cast"
    assert plan(quantized(NF4)).describe() == "nf4, quantized as stored, computed in bf16"
    assert "at the load" in plan(plain(), mode="auto", precision="nf4").describe()


def test_a_repository_quantized_at_the_load_is_another_model_than_itself() -> None:
    facts = plain("BF16")
    ways = [{}, {"precision": "fp16"}, ON_THE_FLY, ON_THE_FLY | {"precision": "int8"}]
    found = [
        resolve(LoadRequest(model="org/name", **fields), asked(facts), versions={})
        for fields in ways
    ]
    assert len({one.cache_key for one in found}) == len(ways)
    assert [one.substitution for one in found[1:3]] == [Substitution.NONE, Substitution.QUANTIZED]
    assert [one.same_values for one in found] == [True, False, False, False]


def test_what_is_packed_counts_as_the_parameters_that_it_stands_for() -> None:
    held = (
        tensor("a", (4, 8)),
        tensor("b.weight", (64, 1), dtype="U8"),
        tensor("b.weight.absmax", (2,), dtype="U8"),
        tensor("b.weight.quant_map", (16,), dtype="F32"),
        tensor("b.weight.quant_state.bitsandbytes__nf4", (100,), dtype="U8"),
    )
    found = resolve(LoadRequest(model="org/name"), asked(quantized(NF4, *held)), versions={})
    assert found.parameters == 4 * 8 + 2 * 64
