"""The bytes of quantized weights, checked against sums done by hand."""

import pytest

from tests.unit.repositories import LLAMA, tensor
from warmrack_store.facts import TensorFact, WeightFile
from warmrack_store.resolution import Memory, Quantization, QuantizationSource
from warmrack_store.resolver.memory import describe_memory, estimate_memory
from warmrack_store.skeleton import CachedLayer, LinearShape, Skeleton

MIXTRAL = LLAMA | {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
LINEAR = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NF4_TABLES = 256 * 4 + 16 * 4 + 4


def on_the_fly(method: str, *skipped: str, compute_dtype: str = "bf16") -> Quantization:
    return Quantization(
        method=method,
        source=QuantizationSource.ON_THE_FLY,
        compute_dtype=compute_dtype,
        skipped=skipped,
    )


def estimate(
    *tensors: TensorFact,
    config: dict[str, object] = LLAMA,
    quantization: Quantization | None = None,
    cast: str | None = None,
    skeleton: Skeleton | None = None,
) -> Memory:
    files = (WeightFile(path="model.safetensors", tensors=tensors),)
    return estimate_memory(
        config, files, 64, quantization=quantization, cast=cast, skeleton=skeleton
    )


def test_an_nf4_layer_is_half_a_byte_an_element_and_its_scales() -> None:
    memory = estimate(tensor(LINEAR, (300, 1000)), quantization=on_the_fly("nf4"))
    blocks = 4688  # 300,000 / 64, rounded up
    assert memory.weights_bytes == 150_000
    assert memory.quantization_state_bytes == blocks + 19 * 4 + NF4_TABLES


def test_an_int8_layer_is_a_byte_an_element_and_a_scale_a_row() -> None:
    memory = estimate(tensor(LINEAR, (300, 1000)), quantization=on_the_fly("int8"))
    assert (memory.weights_bytes, memory.quantization_state_bytes) == (300_000, 1200)


def test_a_transposed_layer_has_its_rows_on_the_other_side() -> None:
    gpt2: dict[str, object] = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    layer = tensor("h.0.mlp.c_fc.weight", (300, 1000))
    memory = estimate(layer, config=gpt2, quantization=on_the_fly("int8"))
    assert memory.quantization_state_bytes == 4000


@pytest.mark.parametrize(
    "name",
    [
        EMBEDDING,
        HEAD,
        "score.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.block_sparse_moe.gate.weight",
        "model.layers.0.mlp.gate.weight",
        "model.layers.0.block_sparse_moe.experts.3.w1.weight",
        "model.layers.0.mlp.experts.gate_up_proj",
        "bert.embeddings.position_embeddings.weight",
        "cls.predictions.decoder.weight",
    ],
)
def test_what_is_no_linear_layer_or_is_skipped_stays_16_bit(name: str) -> None:
    memory = estimate(tensor(name, (10, 10)), quantization=on_the_fly("nf4"))
    assert (memory.weights_bytes, memory.quantization_state_bytes) == (200, 0)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.shared_expert_gate.weight",
        "model.layers.0.mlp.shared_experts.up_proj.weight",
        "bert.pooler.dense.weight",
        "lm_head.dense.weight",
    ],
)
def test_what_only_looks_like_an_exception_is_quantized(name: str) -> None:
    memory = estimate(tensor(name, (10, 10)), quantization=on_the_fly("int8"))
    assert (memory.weights_bytes, memory.quantization_state_bytes) == (100, 40)


def test_declared_modules_are_skipped_as_prefix_up_to_a_dot_or_as_suffix() -> None:
    layer = tensor("model.layers.1.mlp.up_proj.weight", (10, 10))
    for pattern in ("model.layers.1", "up_proj"):
        assert estimate(layer, quantization=on_the_fly("int8", pattern)).weights_bytes == 200
    assert estimate(layer, quantization=on_the_fly("int8", "model.layers.11")).weights_bytes == 100


def test_what_stays_takes_the_dtype_that_a_quantizing_load_computes_in() -> None:
    table = tensor(EMBEDDING, (10, 10), "F32")
    assert estimate(table, quantization=on_the_fly("nf4")).weights_bytes == 200
    wide = on_the_fly("nf4", compute_dtype="fp32")
    assert estimate(table, quantization=wide).weights_bytes == 400


def test_a_cast_changes_floats_and_no_integers() -> None:
    memory = estimate(tensor("a", (10, 10)), tensor("ids", (1, 8), "I64"), cast="fp32")
    assert memory.weights_bytes == 400 + 64


def test_a_bias_that_its_class_keeps_in_fp32_is_counted_so() -> None:
    bias = tensor("model.layers.1.mlp.gate.e_score_correction_bias", (8,))
    assert estimate(bias).weights_bytes == 32
    assert estimate(bias, cast="bf16").weights_bytes == 32


def test_stored_4_bit_weights_are_split_into_weights_and_state() -> None:
    memory = estimate(
        tensor(LINEAR, (150_000, 1), "U8"),
        tensor(f"{LINEAR}.absmax", (4688,), "U8"),
        tensor(f"{LINEAR}.nested_absmax", (19,), "F32"),
        tensor(f"{LINEAR}.quant_map", (16,), "F32"),
        tensor(f"{LINEAR}.nested_quant_map", (256,), "F32"),
        tensor(f"{LINEAR}.quant_state.bitsandbytes__nf4", (90,), "U8"),
        quantization=Quantization(
            method="nf4", source=QuantizationSource.STORED, compute_dtype="bf16"
        ),
    )
    fresh = estimate(tensor(LINEAR, (300, 1000)), quantization=on_the_fly("nf4"))
    assert memory.weights_bytes == fresh.weights_bytes
    assert memory.quantization_state_bytes == fresh.quantization_state_bytes
    assert (memory.load_bytes, fresh.load_bytes) == (0, 14 * 300_000)


def test_a_tied_head_that_is_stored_too_is_held_once() -> None:
    stored = (tensor(EMBEDDING, (20, 10)), tensor(HEAD, (20, 10)))
    assert estimate(*stored).weights_bytes == 800
    tied = LLAMA | {"tie_word_embeddings": True}
    assert estimate(*stored, config=tied).weights_bytes == 400


def test_layers_and_buffers_that_the_class_does_not_take_are_left_out() -> None:
    memory = estimate(
        tensor("model.layers.1.mlp.up_proj.weight", (10, 10)),
        tensor("model.layers.2.mlp.up_proj.weight", (10, 10)),  # for speculation: the model has 2
        tensor("model.layers.1.self_attn.rotary_emb.inv_freq", (8,), "F32"),
    )
    assert memory.weights_bytes == 200


def test_a_vision_towers_layers_are_not_held_against_the_texts_number() -> None:
    layer = tensor("vision_tower.encoder.layers.20.mlp.fc1.weight", (10, 10))
    assert estimate(layer).weights_bytes == 200


def test_the_peak_of_a_load_counts_only_where_it_is_above_cache_and_workspace() -> None:
    memory = Memory(
        weights_bytes=100,
        quantization_state_bytes=10,
        cache_bytes=20,
        context_tokens=1,
        workspace_bytes=30,
        load_bytes=45,
    )
    assert memory.total_bytes == 160
    assert memory.model_copy(update={"load_bytes": 70}).total_bytes == 180


def test_experts_stored_apart_need_their_cast_size_once_more_during_a_cast() -> None:
    expert = tensor("model.layers.0.block_sparse_moe.experts.0.w1.weight", (10, 10))
    assert estimate(expert, config=MIXTRAL).load_bytes == 0
    assert estimate(expert, config=MIXTRAL, cast="fp32").load_bytes == 400


def test_an_unknown_type_is_guessed_from_its_names_and_says_so() -> None:
    strange = LLAMA | {"model_type": "brand-new"}
    layer = tensor(LINEAR, (10, 10))
    guessed = estimate(layer, config=strange, quantization=on_the_fly("int8"))
    assert guessed.weights_bytes == 100
    assert "brand-new" in guessed.notes[0]
    assert estimate(layer, config=strange).notes == ()
    assert estimate(layer, quantization=on_the_fly("int8")).notes == ()


def test_a_skeleton_is_believed_where_one_is_known() -> None:
    skeleton = Skeleton(
        architecture="X",
        library="transformers 5",
        linears=(
            LinearShape(in_features=10, out_features=20, count=3, quantizable=True),
            LinearShape(in_features=10, out_features=5, count=1, quantizable=False),
        ),
        other_elements=7,
        fp32_elements=2,
        persistent_buffer_bytes=8,
        cached=(
            CachedLayer(elements_per_token=6, window_tokens=32, fixed_fp32_elements=1, count=2),
        ),
    )
    strange = LLAMA | {"model_type": "brand-new"}
    memory = estimate(
        tensor(LINEAR, (10, 10)),
        config=strange,
        quantization=on_the_fly("int8"),
        skeleton=skeleton,
    )
    assert memory.weights_bytes == 3 * 200 + 2 * (50 + 7) + 2 * 2 + 8
    assert memory.quantization_state_bytes == 3 * 4 * 20
    assert memory.cache_bytes == 2 * (6 * 32 * 2 + 4)
    assert memory.notes == ()


def test_the_parts_are_named_for_people_where_there_are_any() -> None:
    plain = estimate(tensor(LINEAR, (10, 10)))
    assert "quantization state" not in describe_memory(plain)
    assert " for 64 tokens" in describe_memory(plain)
    packed = estimate(tensor(LINEAR, (3000, 10000)), quantization=on_the_fly("nf4"))
    assert "quantization state 466.0 KiB" in describe_memory(packed)
    assert "load 400.5 MiB" in describe_memory(packed)


def test_a_name_stored_twice_in_two_shapes_is_counted_and_breaks_nothing() -> None:
    twice = (tensor(LINEAR, ()), tensor(LINEAR, (10, 10)))
    assert estimate(*twice, quantization=on_the_fly("int8")).weights_bytes == 2 + 100
