"""What a request becomes, by rule."""

from typing import Any

import pytest

from tests.unit.repositories import COMMIT, LLAMA, make_facts, ref_of, tensor
from warmrack_store import errors
from warmrack_store.facts import RepositoryFacts
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Resolution, Substitution
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked

VERSIONS = {"transformers": "5.23.0"}


def resolved(facts: RepositoryFacts, model: str = "org/name", **fields: Any) -> Resolution:
    request = LoadRequest(model=model, **fields)
    return resolve(request, Asked(ref=ref_of(facts), facts=facts), versions=VERSIONS)


def test_every_rule_writes_one_line_in_order() -> None:
    rules = [line.rule for line in resolved(make_facts()).trail]
    assert rules == [f"R{number}" for number in range(10)]


def test_a_resolution_is_pinned_to_the_commit_whatever_the_name_of_the_revision() -> None:
    found = resolved(make_facts(), revision="main")
    assert (found.commit, found.ref_asked) == (COMMIT, "main")


def test_another_case_of_the_name_is_an_alias_of_the_hubs_spelling() -> None:
    found = resolved(make_facts(), model="Org/Name")
    assert (found.repository, found.substitution) == ("org/name", Substitution.ALIAS)
    assert resolved(make_facts()).substitution is Substitution.NONE


def test_the_files_are_weights_and_what_transformers_reads() -> None:
    facts = make_facts(
        others=(
            *("README.md", "LICENSE", "logo.png", "pytorch_model.bin", "model.fp16.safetensors"),
            *(
                "tf_model.h5",
                "model.Q4.gguf",
                "onnx/model.onnx",
                "original/consolidated.00.pth",
                "1_Pooling/config.json",
            ),
            *("merges.txt", "chat_template.jinja", "additional_chat_templates/tool.jinja"),
        )
    )
    found = resolved(facts)
    assert [file.path for file in found.files] == [
        "additional_chat_templates/tool.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert "config.json" not in found.tokenizer_files
    assert "tokenizer.json" in found.tokenizer_files


def test_shards_are_taken_with_their_index_and_without_the_consolidated_copy() -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": (tensor(f"t{n}"),) for n in (1, 2)}
    copy = (tensor("t1"), tensor("t2"))
    facts = make_facts(
        {**shards, "consolidated.safetensors": copy}, others=("model.safetensors.index.json",)
    )
    found = resolved(facts)
    assert found.weights == tuple(shards)
    assert "model.safetensors.index.json" in {file.path for file in found.files}
    assert found.parameters == 2 * 4 * 8


def test_a_single_file_wins_over_shards_as_in_transformers() -> None:
    held = {
        "model.safetensors": (tensor("a"),),
        "model-00001-of-00001.safetensors": (tensor("a"),),
    }
    found = resolved(make_facts(held, others=("model.safetensors.index.json",)))
    assert found.weights == ("model.safetensors",)
    assert "model.safetensors.index.json" not in {file.path for file in found.files}


@pytest.mark.parametrize(
    ("others", "error"),
    [
        (("pytorch_model.bin",), errors.UnsafeFormat),
        (("pytorch_model.bin", "training_args.bin"), errors.UnsafeFormat),
        (("training_args.bin",), errors.NotSupported),
        (("name.Q4_K_M.gguf",), errors.NotSupported),
        (("adapter_config.json", "adapter_model.safetensors"), errors.NotSupported),
        (("unet/diffusion_pytorch_model.safetensors", "model_index.json"), errors.NotSupported),
        ((), errors.NotSupported),
    ],
)
def test_a_repository_without_safetensors_weights_is_refused(
    others: tuple[str, ...], error: type[errors.WarmrackError]
) -> None:
    with pytest.raises(error, match="org/name"):
        resolved(make_facts({}, others=others))


def test_a_full_model_with_an_adapter_beside_it_is_refused() -> None:
    with pytest.raises(errors.BothKinds):
        resolved(make_facts(others=("adapter_config.json",)))


def test_missing_shards_are_refused_with_their_number() -> None:
    one = {"model-00001-of-00003.safetensors": (tensor("a"),)}
    with pytest.raises(errors.NotSupported, match="1 of the 3 shards"):
        resolved(make_facts(one, others=("model.safetensors.index.json",)))


def test_a_tensor_stored_twice_is_refused() -> None:
    twice = {f"model-0000{n}-of-00002.safetensors": (tensor("same"),) for n in (1, 2)}
    with pytest.raises(errors.NotSupported, match="'same' in 2 files"):
        resolved(make_facts(twice, others=("model.safetensors.index.json",)))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"auto_map": {"AutoModel": "modeling.M"}}, errors.RemoteCode, "auto_map"),
        ({"model_type": None}, errors.NotSupported, "model_type"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, errors.NotSupported, "awq 4"),
        (
            {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
            errors.NotSupported,
            "text part: fp8",
        ),
        ({"compression_config": {"format": "int-quantized"}}, errors.NotSupported, "int-quantized"),
        ({"quantization": {"group_size": 64, "bits": 4}}, errors.NotSupported, "4 bits"),
        (
            {"transformers_weights": "other.safetensors"},
            errors.NotSupported,
            "transformers_weights",
        ),
    ],
)
def test_what_the_config_declares_and_is_not_served_is_refused(
    change: dict[str, Any], error: type[errors.WarmrackError], words: str
) -> None:
    with pytest.raises(error, match=words):
        resolved(make_facts(config=LLAMA | change))


@pytest.mark.parametrize(
    "path", ["hf_quant_config.json", "quantize_config.json", "quant_config.json"]
)
def test_a_file_that_only_quantized_checkpoints_have_is_a_declaration(path: str) -> None:
    with pytest.raises(errors.NotSupported, match=path):
        resolved(make_facts(others=(path,)))


def test_eight_bit_floats_are_quantized_even_where_nothing_declares_it() -> None:
    with pytest.raises(errors.NotSupported, match="F8_E4M3"):
        resolved(make_facts({"model.safetensors": (tensor("a", dtype="F8_E4M3"),)}))


def test_a_missing_and_a_broken_config_are_told_apart() -> None:
    with pytest.raises(errors.NotSupported, match=r"no config\.json"):
        resolved(make_facts(config=None))
    with pytest.raises(errors.NotSupported, match="is not JSON: line 1"):
        resolved(make_facts(config=None, config_error="is not JSON: line 1"))


@pytest.mark.parametrize(
    ("dtypes", "precision"),
    [
        (("BF16", "BF16"), "bf16"),
        (("F16",), "fp16"),
        (("F32", "I64"), "fp32"),
        (("BF16", "F32"), "mixed"),
        (("U8",), "mixed"),
    ],
)
def test_the_precision_is_the_one_float_dtype_stored(
    dtypes: tuple[str, ...], precision: str
) -> None:
    held = tuple(tensor(f"t{n}", dtype=dtype) for n, dtype in enumerate(dtypes))
    found = resolved(make_facts({"model.safetensors": held}))
    assert found.precision == precision
    assert sum(found.stored_dtypes.values()) == len(dtypes)


def test_a_dtype_named_otherwise_than_stored_is_served_as_stored_with_a_warning() -> None:
    found = resolved(make_facts({"model.safetensors": (tensor("a", dtype="F32"),)}))
    assert found.precision == "fp32"
    assert any("names bf16" in warning for warning in found.warnings)
    assert resolved(make_facts()).warnings == ()


def test_the_download_limit_refuses_with_both_numbers() -> None:
    size_bytes = resolved(make_facts()).size_bytes
    assert resolved(make_facts(), max_download_bytes=size_bytes).size_bytes == size_bytes
    with pytest.raises(errors.WontFit, match=f"{size_bytes} bytes .* allows {size_bytes - 1}"):
        resolved(make_facts(), max_download_bytes=size_bytes - 1)


def test_the_memory_limit_refuses_with_both_numbers() -> None:
    needed_bytes = resolved(make_facts()).memory.total_bytes
    with pytest.raises(errors.WontFit, match=f"{needed_bytes} bytes.* allows 1000"):
        resolved(make_facts(), max_memory_bytes=1000)


def test_a_longer_sequence_than_the_model_has_is_capped_with_a_warning() -> None:
    found = resolved(make_facts(), max_seq_length=100_000)
    assert found.memory.context_tokens == 2048
    assert found.warnings == ("max_seq_length 100000 is more than the model's 2048",)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("LlamaForCausalLM", True),
        ("T5ForConditionalGeneration", True),
        ("GPT2LMHeadModel", True),
        ("BertModel", False),
        ("BertForSequenceClassification", False),
    ],
)
def test_only_a_class_that_generates_is_said_to(architecture: str, expected: bool) -> None:
    found = resolved(make_facts(config=LLAMA | {"architectures": [architecture]}))
    assert (found.architecture, found.generates) == (architecture, expected)


def test_a_value_that_this_version_does_not_serve_is_refused_before_anything_else() -> None:
    with pytest.raises(errors.NotSupported, match="attn 'sdpa'"):
        resolved(make_facts({}), attn="sdpa")


def test_facts_of_another_commit_are_a_defect() -> None:
    facts = make_facts()
    other = ref_of(facts).model_copy(update={"commit": "f" * 40})
    with pytest.raises(errors.Defect):
        Asked(ref=other, facts=facts)
