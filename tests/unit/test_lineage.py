"""The lineage gate: what is the same model in other clothes, and what is not."""

from typing import Any

import pytest

from tests.unit.lineages import APERTUS_8B, BNB_4BIT, GEMMA_2B, LLAMA_8B, QWEN2_1B, model
from tests.unit.repositories import make_facts, tensor
from warmrack_store.catalog import load_catalog
from warmrack_store.facts import RepositoryFacts
from warmrack_store.resolver.lineage import Difference, check_lineage, list_differences
from warmrack_store.resolver.relatives import find_kind

LLAMA = model("meta-llama/Llama-3.1-8B-Instruct", LLAMA_8B)


def codes(asked: RepositoryFacts, candidate: RepositoryFacts) -> set[str]:
    return {finding.code.value for finding in list_differences(asked, candidate)}


def test_row_that_led_from_a_small_qwen_to_a_large_llama_is_rejected() -> None:
    asked = model("agentica-org/DeepScaleR-1.5B-Preview", QWEN2_1B)
    served = model(
        "unsloth/DeepSeek-R1-Distill-Llama-8B-unsloth-bnb-4bit",
        {**LLAMA_8B, "quantization_config": BNB_4BIT},
        stored="nf4",
    )
    rejected = check_lineage(asked, served)
    assert rejected is not None
    assert rejected.code == "lineage-mismatch"
    assert rejected.repository == served.repository
    assert "LlamaForCausalLM instead of Qwen2ForCausalLM" in rejected.reason
    assert codes(asked, served) >= {"architecture", "dimensions", "vocabulary", "parameters"}


def test_row_that_led_from_a_base_apertus_to_the_instruct_one_is_rejected() -> None:
    asked = model("swiss-ai/Apertus-8B-2509", APERTUS_8B)
    served = model("unsloth/Apertus-8B-Instruct-2509-unsloth-bnb-4bit", APERTUS_8B, stored="nf4")
    assert codes(asked, served) == {"kind"}


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("google/gemma-2b", "unsloth/gemma-2b-it-bnb-4bit"),
        ("google/gemma-2b-it", "unsloth/gemma-2b-bnb-4bit"),
    ],
)
def test_row_that_mixed_up_base_and_instruct_gemma_is_rejected(asked: str, served: str) -> None:
    rejected = check_lineage(model(asked, GEMMA_2B), model(served, GEMMA_2B, stored="nf4"))
    assert rejected is not None
    assert rejected.reason.startswith("kind: ")


PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "dimensions": ({"hidden_size": 2048}, "hidden size 2048 instead of 4096"),
    "vocabulary": ({"vocab_size": 128257}, "128257 instead of 128256"),
    "architecture": ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
    "positions": ({"rope_scaling": None}, "default rotary encoding"),
}


@pytest.mark.parametrize("code", PLANTED)
def test_one_planted_difference_is_named_with_both_sides(code: str) -> None:
    change, said = PLANTED[code]
    found = list_differences(LLAMA, model("mirror/Llama-3.1-8B-Instruct", {**LLAMA_8B, **change}))
    assert [one.reason for one in found if one.code.value == code and said in one.reason]


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_key_value_heads", "intermediate_size"])
def test_another_size_is_another_model_in_sizes_and_parameters(key: str) -> None:
    smaller = model("mirror/Llama-3.1-8B-Instruct", {**LLAMA_8B, key: LLAMA_8B[key] // 2})
    assert codes(LLAMA, smaller) >= {"dimensions", "parameters"}


def test_pruned_weights_under_an_unchanged_config_are_found_by_their_count() -> None:
    whole = model("mirror/Llama-3.1-8B-Instruct", LLAMA_8B)
    fewer = whole.weights[0].model_copy(update={"tensors": whole.weights[0].tensors[:-20]})
    assert codes(LLAMA, whole.model_copy(update={"weights": (fewer,)})) == {"parameters"}


@pytest.mark.parametrize("stored", ["nf4", "fp8", "gptq"])
def test_packed_weights_of_the_same_model_pass(stored: str) -> None:
    config = {**LLAMA_8B, "quantization_config": {"bits": 4}, "dtype": "float16"}
    mirror = model("mirror/Llama-3.1-8B-Instruct-quantized", config, stored=stored)
    assert check_lineage(LLAMA, mirror) is None
    assert check_lineage(mirror, LLAMA) is None


def test_a_4_bit_mirror_in_another_case_passes() -> None:
    config = {**LLAMA_8B, "quantization_config": BNB_4BIT}
    mirror = model("UNSLOTH/llama-3.1-8b-INSTRUCT-bnb-4bit", config, stored="nf4")
    assert check_lineage(LLAMA, mirror) is None


def test_a_tied_head_that_one_side_leaves_out_makes_no_difference() -> None:
    tied = {**QWEN2_1B, "tie_word_embeddings": True}
    asked = model("Qwen/Qwen2-1.5B", tied, head=True)
    assert check_lineage(asked, model("mirror/Qwen2-1.5B", tied, head=False)) is None
    assert check_lineage(model("mirror/Qwen2-1.5B", tied, head=False), asked) is None


def test_a_config_saved_by_a_newer_library_is_the_same() -> None:
    newer = {key: value for key, value in LLAMA_8B.items() if not key.startswith("rope_")}
    newer |= {"head_dim": 128}
    newer["rope_parameters"] = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500000.0}
    assert check_lineage(LLAMA, model("mirror/Llama-3.1-8B-Instruct", newer)) is None


def test_a_chat_template_on_one_side_only_tells_kinds_apart_where_the_names_do_not() -> None:
    asked = model("org/model", QWEN2_1B, chat_template=False)
    tuned = model("mirror/model", QWEN2_1B, chat_template=True)
    rejected = check_lineage(asked, tuned)
    assert rejected is not None
    assert rejected.reason == "kind: mirror/model has a chat template, org/model none"
    unread = model("mirror/model", QWEN2_1B, chat_template=None)
    assert check_lineage(asked, unread) is None


@pytest.mark.parametrize("config", [None, LLAMA_8B])
def test_what_cannot_be_compared_is_not_taken_for_the_same(config: dict[str, Any] | None) -> None:
    others = () if config is None else ("pytorch_model.bin",)
    pickled = make_facts({}, others=others, config=config, repository="mirror/x-Instruct")
    assert Difference.UNKNOWN.value in codes(LLAMA, pickled)


def test_a_model_is_its_own_relative() -> None:
    for facts in (LLAMA, make_facts(), make_facts({"model.safetensors": (tensor("w"),)})):
        assert check_lineage(facts, facts) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("google/gemma-2b", "unmarked"),
        ("google/gemma-2b-it", "instruct"),
        ("google/gemma-3-4b-pt", "base"),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", "instruct, code"),
        ("Qwen/Qwen3-4B-Thinking-2507", "thinking"),
        ("chat-org/TinyLlama_1.1B.Chat", "instruct"),
        ("org/italian", "unmarked"),
    ],
)
def test_kind_is_read_from_whole_words_of_the_name(name: str, kind: str) -> None:
    assert find_kind(name) == kind


def test_names_within_a_row_of_the_catalog_say_the_same_kind() -> None:
    rows = load_catalog().entries
    assert [
        row.four_bit for row in rows if len({find_kind(name) for name in row.names()}) > 1
    ] == []
