"""Skeletons counted on the meta device, against the rule by names, and as SQL keeps them."""

from typing import Any

import pytest

from tests.hub.families import FAMILIES, QUANTIZATIONS, make_config
from warmrack_store.database import Database
from warmrack_store.errors import NotSupported
from warmrack_store.facts import TensorFact, WeightFile
from warmrack_store.ledgers import skeletons
from warmrack_store.resolution import Memory, Quantization, QuantizationSource
from warmrack_store.resolver.memory import estimate_memory
from warmrack_store.skeleton import Skeleton
from warmrack_workers.skeleton import ask_skeleton, count_skeleton, learn_skeleton


def config_of(name: str) -> dict[str, Any]:
    config: dict[str, Any] = make_config(name).to_dict()
    return config | {"architectures": [FAMILIES[name].model]}


def headers_of(name: str) -> tuple[WeightFile, ...]:
    """As a checkpoint of the family has them, without one being written."""
    import torch

    from tests.hub.families import get_class

    with torch.device("meta"):
        model = get_class(name)(make_config(name)).to(torch.bfloat16)
    tensors, tied = [], set(model.all_tied_weights_keys)
    for key, held in model.state_dict().items():
        if key not in tied:
            size = held.numel() * held.element_size()
            dtype = "BF16" if held.is_floating_point() else "I64"
            shape = tuple(held.shape)
            tensors.append(TensorFact(name=key, dtype=dtype, shape=shape, size_bytes=size))
    return (WeightFile(path="model.safetensors", tensors=tuple(tensors)),)


def estimate(name: str, method: str, skeleton: Skeleton | None) -> Memory:
    quantization = Quantization(
        method=method, source=QuantizationSource.ON_THE_FLY, compute_dtype="bf16"
    )
    memory = estimate_memory(
        config_of(name), headers_of(name), 64, quantization=quantization, skeleton=skeleton
    )
    return memory.model_copy(update={"notes": ()})


@pytest.mark.parametrize("name", FAMILIES)
def test_the_count_and_the_rule_by_names_agree(name: str) -> None:
    skeleton = count_skeleton(FAMILIES[name].model, config_of(name))
    for method in QUANTIZATIONS:
        assert estimate(name, method, skeleton) == estimate(name, method, None)


def test_fused_experts_are_no_linear_layers() -> None:
    skeleton = count_skeleton("MixtralForCausalLM", config_of("mixtral"))
    quantizable = [shape for shape in skeleton.linears if shape.quantizable]
    assert {(one.in_features, one.out_features) for one in quantizable} == {(64, 64), (64, 32)}
    assert skeleton.other_elements > 3 * 4 * 3 * 64 * 160  # layers x experts x their matrices


def test_the_cache_is_counted_by_its_kinds_of_layers() -> None:
    sliding = count_skeleton("Gemma2ForCausalLM", config_of("gemma2")).cached
    assert sliding is not None
    assert {(one.window_tokens, one.count) for one in sliding} == {(8, 2), (None, 1)}
    assert count_skeleton("BertModel", config_of("bert_model")).cached is None


def test_a_process_of_its_own_gives_the_same_count() -> None:
    config = config_of("llama")
    assert ask_skeleton("LlamaForCausalLM", config) == count_skeleton("LlamaForCausalLM", config)


def test_a_class_that_cannot_be_built_is_refused_with_what_the_library_said() -> None:
    with pytest.raises(NotSupported, match="NoSuchClass"):
        ask_skeleton("NoSuchClass", {"model_type": "llama"})


@pytest.mark.slow
def test_a_config_is_counted_once_and_kept(database: Database) -> None:
    config = config_of("llama")
    first = learn_skeleton(database, "LlamaForCausalLM", config)
    assert first is not None
    # A class that nobody could count: what is known answers.
    assert learn_skeleton(database, "NoSuchClass", config) == first
    assert learn_skeleton(database, "NoSuchClass", {"model_type": "x"}) is None


def test_the_newest_count_of_a_config_is_kept(database: Database) -> None:
    skeleton = Skeleton(architecture="A", library="1", linears=(), other_elements=1)
    newer = skeleton.model_copy(update={"library": "2"})
    with database.write() as tx:
        assert skeletons.find_skeleton(tx, {"a": 1}) is None
        skeletons.put_skeleton(tx, {"a": 1, "b": 2}, skeleton)
        skeletons.put_skeleton(tx, {"b": 2, "a": 1}, newer)
        assert skeletons.find_skeleton(tx, {"a": 1, "b": 2}) == newer
        assert skeletons.find_skeleton(tx, {"a": 1}) is None
