"""What holds of every estimate, whatever a config says."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from warmrack_store.facts import TensorFact, WeightFile
from warmrack_store.resolution import Memory, Quantization, QuantizationSource
from warmrack_store.resolver.memory import describe_memory, estimate_memory

KEYS = st.sampled_from(
    [
        "model_type",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "vocab_size",
        "sliding_window",
        "layer_types",
        "kv_lora_rank",
        "qk_rope_head_dim",
        "max_position_embeddings",
        "is_encoder_decoder",
        "text_config",
        "tie_word_embeddings",
        "pad_token_id",
        "linear_num_value_heads",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "attention_chunk_size",
        "conv_L_cache",
        "multi_query",
        "architectures",
    ]
)
SCALARS = (
    st.integers(-5, 2**45)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False)
    | st.sampled_from(["llama", "mistral", "gpt2", "deepseek_v3", "sliding_attention", "no"])
)
KINDS = st.lists(
    st.sampled_from(["sliding_attention", "full_attention", "linear_attention", "conv", "odd"]),
    max_size=4,
)
VALUES = SCALARS | KINDS | st.just(["LlamaForCausalLM"])
CONFIGS = st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=5), max_size=14)
NAMES = st.sampled_from(
    [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.mlp.experts.1.up_proj.weight",
        "model.layers.99.self_attn.q_proj.weight",
        "x",
    ]
)
SHAPES = st.lists(st.integers(0, 5000), max_size=3).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> TensorFact:
    shape: tuple[int, ...] = draw(SHAPES)
    elements = 1
    for extent in shape:
        elements *= extent
    dtype, size = draw(st.sampled_from([("BF16", 2), ("F32", 4), ("U8", 1), ("F8_E4M3", 1)]))
    return TensorFact(name=draw(NAMES), dtype=dtype, shape=shape, size_bytes=elements * size)


FILES = st.lists(tensors(), max_size=5).map(
    lambda held: (WeightFile(path="model.safetensors", tensors=tuple(held)),)
)
QUANTIZATIONS = st.none() | st.builds(
    Quantization,
    method=st.sampled_from(["nf4", "int8", "fp8", "gguf:Q4_K_M"]),
    source=st.sampled_from(QuantizationSource),
    compute_dtype=st.sampled_from(["bf16", "fp16", "fp32"]),
)
CONTEXTS = st.none() | st.integers(1, 2**31)


@given(CONFIGS, FILES, CONTEXTS, QUANTIZATIONS, st.integers(1, 64))
def test_every_config_has_an_estimate_and_no_part_of_it_is_negative(
    config: dict[str, Any],
    files: tuple[WeightFile, ...],
    context: int | None,
    quantization: Quantization | None,
    batch: int,
) -> None:
    memory = estimate_memory(config, files, context, quantization=quantization, batch=batch)
    parts = memory.model_dump(exclude={"notes"})
    assert all(value >= 0 for value in parts.values())
    assert memory.total_bytes < 2**63
    assert describe_memory(memory)


@given(CONFIGS, FILES, st.integers(1, 2**20), st.integers(1, 2**20), st.integers(1, 8))
def test_more_context_or_more_sequences_never_need_less(
    config: dict[str, Any], files: tuple[WeightFile, ...], some: int, more: int, batch: int
) -> None:
    def estimate(context: int, batch: int) -> Memory:
        return estimate_memory(config, files, context, batch=batch)

    low, high = sorted((some, more))
    assert estimate(low, batch).total_bytes <= estimate(high, batch).total_bytes
    assert estimate(low, batch).total_bytes <= estimate(low, batch + 1).total_bytes


@given(CONFIGS, FILES)
def test_quantizing_never_makes_16_bit_weights_larger_but_for_its_state(
    config: dict[str, Any], files: tuple[WeightFile, ...]
) -> None:
    def weigh(method: str) -> int:
        chosen = Quantization(
            method=method, source=QuantizationSource.ON_THE_FLY, compute_dtype="bf16"
        )
        return estimate_memory(config, files, 1, quantization=chosen).weights_bytes

    plain = estimate_memory(config, files, 1, cast="bf16").weights_bytes
    # An odd number of elements ends in half a byte.
    assert weigh("nf4") <= weigh("int8") + len(files[0].tensors) <= plain + len(files[0].tensors)
