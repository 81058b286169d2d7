"""The memory a model is charged with, checked against sums done by hand."""

from typing import Any

import pytest

from tests.unit.repositories import LLAMA, tensor
from warmrack_store.errors import WontFit
from warmrack_store.facts import WeightFile
from warmrack_store.resolution import Memory
from warmrack_store.resolver.memory import check_fits, estimate_memory

BF16 = (WeightFile(path="model.safetensors", tensors=(tensor("a", (10, 10)),)),)
F32 = (WeightFile(path="model.safetensors", tensors=(tensor("a", (10, 10), "F32"),)),)


def cache_bytes(config: dict[str, Any], max_seq_length: int | None = 1000) -> int:
    return estimate_memory(config, BF16, max_seq_length).cache_bytes


def test_weights_are_the_bytes_of_the_headers() -> None:
    assert estimate_memory(LLAMA, BF16, None).weights_bytes == 200
    assert estimate_memory(LLAMA, F32, None).weights_bytes == 400


def test_the_cache_counts_kv_heads_not_heads() -> None:
    head_dim = 64 // 4
    assert cache_bytes(LLAMA) == 2 * 2 * 2 * head_dim * 1000 * 2


def test_the_cache_of_a_wider_dtype_is_wider() -> None:
    assert estimate_memory(LLAMA, F32, 1000).cache_bytes == 2 * cache_bytes(LLAMA)


def test_a_declared_head_size_wins_over_the_quotient() -> None:
    assert cache_bytes(LLAMA | {"head_dim": 32}) == 2 * cache_bytes(LLAMA)


def test_a_composed_model_is_judged_by_its_text_part() -> None:
    composed = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": LLAMA,
    }
    assert cache_bytes(composed) == cache_bytes(LLAMA)


def test_sliding_layers_cache_only_their_window() -> None:
    mixed = LLAMA | {
        "layer_types": ["sliding_attention", "full_attention", "linear_attention"],
        "sliding_window": 100,
    }
    one_layer_one_token = cache_bytes(LLAMA) // 2 // 1000
    assert cache_bytes(mixed) == one_layer_one_token * (100 + 1000)


def test_a_window_without_layer_types_counts_only_where_every_layer_slides() -> None:
    windowed = LLAMA | {"sliding_window": 100}
    assert cache_bytes(windowed) == cache_bytes(LLAMA)
    assert cache_bytes(windowed | {"model_type": "mistral"}) == cache_bytes(LLAMA) // 10


def test_an_encoder_decoder_caches_both_sides() -> None:
    t5 = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "d_model": 64,
        "d_kv": 16,
        "num_heads": 4,
        "num_layers": 9,
        "num_decoder_layers": 3,
    }
    assert cache_bytes(t5) == 2 * (2 * 3 * 4 * 16 * 1000 * 2)


def test_an_encoder_has_no_cache_but_a_context() -> None:
    bert = LLAMA | {"architectures": ["BertModel"], "max_position_embeddings": 512}
    memory = estimate_memory(bert, BF16, None)
    assert (memory.cache_bytes, memory.context_tokens) == (0, 512)


def test_the_context_is_4096_unless_asked_or_bounded() -> None:
    long = LLAMA | {"max_position_embeddings": 131072}
    assert estimate_memory(long, BF16, None).context_tokens == 4096
    assert estimate_memory(long, BF16, 100_000).context_tokens == 100_000
    assert estimate_memory(LLAMA, BF16, None).context_tokens == 2048


def test_roberta_has_two_positions_fewer_than_its_table() -> None:
    roberta = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    assert estimate_memory(roberta, BF16, None).context_tokens == 512


def test_the_workspace_grows_with_the_vocabulary_and_not_with_a_long_context() -> None:
    small = estimate_memory(LLAMA, BF16, 512).workspace_bytes
    assert estimate_memory(LLAMA, BF16, 2048).workspace_bytes == small
    grown = estimate_memory(LLAMA | {"vocab_size": 257}, BF16, 512).workspace_bytes
    assert grown - small == 512 * 4


def test_a_model_without_a_language_head_has_no_logits() -> None:
    encoder = LLAMA | {"architectures": ["BertModel"]}
    head = estimate_memory(LLAMA, BF16, 512).workspace_bytes
    assert head - estimate_memory(encoder, BF16, 512).workspace_bytes == 512 * 256 * 4


def test_a_model_that_no_device_may_hold_is_refused_with_every_budget() -> None:
    memory = Memory(
        weights_bytes=3 * 2**30, cache_bytes=2**30, context_tokens=4096, workspace_bytes=0
    )
    check_fits(memory, {"cpu:0": 2**30, "cpu:1": 4 * 2**30})
    with pytest.raises(WontFit, match=r"4\.0 GiB .* cpu:0 1\.0 GiB, cpu:1 2\.0 GiB"):
        check_fits(memory, {"cpu:0": 2**30, "cpu:1": 2 * 2**30})
