"""The audit's verdict, from facts alone."""

from dataclasses import replace
from typing import Any

import pytest

from warmrack_store.errors import Integrity, NotExact, Proof
from warmrack_store.facts import FileFact
from warmrack_store.receipts import Level
from warmrack_store.resolution import (
    Memory,
    Quantization,
    QuantizationSource,
    Resolution,
    Substitution,
)
from warmrack_store.tensors import root_digest
from warmrack_workers.audit import (
    Evidence,
    FileEvidence,
    TensorEvidence,
    check_files,
    find_failure,
    judge,
)

COMMIT = "c" * 40
DIGEST, LEAF, OTHER = "a" * 40, "1" * 64, "2" * 64
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
RESOLUTION = Resolution(
    request_digest="0" * 32,
    asked="org/model",
    ref_asked=None,
    repository="org/model",
    commit=COMMIT,
    private=False,
    gated=False,
    substitution=Substitution.NONE,
    files=tuple(FileFact(path=path, size=1, git_sha1=DIGEST) for path in FILES),
    weights=("model.safetensors",),
    architecture="LlamaForCausalLM",
    model_type="llama",
    parameters=1,
    stored_dtypes={"BF16": 2},
    precision="bf16",
    tokenizer_files=("tokenizer.json",),
    memory=Memory(weights_bytes=1, cache_bytes=1, context_tokens=1, workspace_bytes=1),
    generates=True,
    trail=(),
    catalog_version="test",
)


def tensor(name: str, **changes: Any) -> TensorEvidence:
    plain = TensorEvidence(
        name=name,
        target=f"model.{name}",
        expected_dtype="BF16",
        actual_dtype="BF16",
        expected=LEAF,
        actual=LEAF,
    )
    return replace(plain, **changes)


def file(path: str, actual: str | None = DIGEST) -> FileEvidence:
    return FileEvidence(
        path=path, size=1, sha256="b" * 64, expected=DIGEST, actual=actual, read=True
    )


def evidence(**changes: Any) -> Evidence:
    plain = Evidence(
        resolution=RESOLUTION,
        snapshot_name=COMMIT,
        files=tuple(file(path) for path in FILES),
        class_name="LlamaForCausalLM",
        quantized_modules=(),
        quantization_differences=(),
        unquantized_layers=(),
        tensors=(tensor("a"), tensor("b")),
        unbacked=(),
        tied=("lm_head.weight",),
        ignored=(),
        missing=(),
        unexpected=(),
        mismatched=(),
        added_tokens=(),
        config_changes=(),
        audit_policy="full",
        audit_seconds=0.5,
    )
    return replace(plain, **changes)


def test_equal_model_reaches_level_loaded_and_is_identical() -> None:
    receipt = judge(evidence())
    assert receipt.level is Level.LOADED
    assert receipt.identical
    assert receipt.failed == ()
    assert receipt.tensor_root == root_digest({"a": LEAF, "b": LEAF})
    assert set(receipt.checks) == {f"E{number}" for number in range(1, 9)}
    assert "tied: lm_head.weight" in receipt.checks["E6"].detail
    assert find_failure(evidence(), receipt) is None


def _substituted(substitution: Substitution) -> dict[str, Any]:
    return {"resolution": RESOLUTION.model_copy(update={"substitution": substitution})}


def _files(path: str, actual: str | None) -> tuple[FileEvidence, ...]:
    return tuple(file(each, actual if each == path else DIGEST) for each in FILES)


@pytest.mark.parametrize(
    ("changes", "kind", "check", "named"),
    [
        (_substituted(Substitution.MIRROR), NotExact, "E1", "mirror"),
        ({"snapshot_name": "d" * 40}, NotExact, "E1", "d" * 40),
        ({"files": _files("config.json", "f" * 40)}, Integrity, "E2", "config.json"),
        ({"files": _files("model.safetensors", None)}, Integrity, "E2", "is missing"),
        ({"class_name": "LlamaModel"}, NotExact, "E3", "LlamaModel"),
        ({"quantization_differences": ("q is bnb",)}, NotExact, "E4", "q is bnb"),
        ({"tensors": (tensor("a", actual_dtype="F32"),)}, NotExact, "E5", "model.a is F32"),
        ({"tensors": (tensor("a", actual=OTHER),)}, Integrity, "E6", OTHER),
        ({"tensors": (tensor("a", actual=None),)}, NotExact, "E6", "parts"),
        ({"unbacked": ("pooler",)}, NotExact, "E6", "pooler comes from no file"),
        ({"missing": ("x",)}, NotExact, "E6", "x is missing"),
        ({"unexpected": ("y",)}, NotExact, "E6", "y is unexpected"),
        ({"mismatched": ("z",)}, NotExact, "E6", "z has another shape"),
        ({"added_tokens": ("<pad>",)}, NotExact, "E7", "<pad>"),
        ({"config_changes": ("a is 1, stored as 2",)}, NotExact, "E8", "a is 1"),
    ],
)
def test_each_difference_fails_its_check_and_is_named(
    changes: dict[str, Any], kind: type[Proof], check: str, named: str
) -> None:
    found = evidence(**changes)
    receipt = judge(found)
    assert check in receipt.failed
    assert not receipt.identical
    assert receipt.tensor_root is None
    assert receipt.level is not Level.LOADED
    failure = find_failure(found, receipt)
    assert type(failure) is kind
    assert named in failure.message
    assert failure.code in ("integrity", "not-exact")


def test_tokenizer_file_that_changed_also_fails_the_tokenizer_check() -> None:
    receipt = judge(evidence(files=_files("tokenizer.json", "f" * 40)))
    assert receipt.failed == ("E2", "E7")
    assert receipt.level is Level.NAME


def test_changed_bytes_outrank_what_follows_from_them() -> None:
    changes = {"files": _files("config.json", "f" * 40), "snapshot_name": "d" * 40}
    found = evidence(**changes)
    failure = find_failure(found, judge(found))
    assert isinstance(failure, Integrity)
    assert failure.message.index("E2") < failure.message.index("E1")


def test_quantized_layers_are_named_with_how_they_came_about() -> None:
    quantization = Quantization(
        method="nf4", source=QuantizationSource.STORED, compute_dtype="bf16"
    )
    resolution = RESOLUTION.model_copy(update={"quantization": quantization})
    found = evidence(
        resolution=resolution, quantized_modules=("q", "k"), unquantized_layers=("lm_head",)
    )
    check = judge(found).checks["E4"]
    assert check.passed
    assert check.detail == ("2 layers nf4, quantized as stored; linear and not quantized: lm_head")


def test_many_layers_that_stay_unquantized_are_counted_after_the_first() -> None:
    quantization = Quantization(
        method="nf4", source=QuantizationSource.STORED, compute_dtype="bf16"
    )
    resolution = RESOLUTION.model_copy(update={"quantization": quantization})
    left = tuple(f"vision.{number}" for number in range(200))
    check = judge(evidence(resolution=resolution, unquantized_layers=left)).checks["E4"]
    assert check.detail.endswith("vision.0, vision.1, vision.2 and 197 more")


def test_what_a_load_made_is_in_the_root_and_is_not_identical() -> None:
    resolution = RESOLUTION.model_copy(update={"cast": "fp32", "precision": "fp32"})
    made = tensor("a", expected_dtype="F32", actual_dtype="F32", served=OTHER)
    receipt = judge(evidence(resolution=resolution, tensors=(made, tensor("b"))))
    assert receipt.level is Level.LOADED
    assert not receipt.identical
    assert receipt.tensor_root == root_digest({"a": OTHER, "b": LEAF})
    assert "1 were made anew" in receipt.checks["E6"].detail
    assert "in fp32 as asked" in receipt.checks["E5"].detail


def test_alias_is_the_repository_as_asked() -> None:
    assert judge(evidence(**_substituted(Substitution.ALIAS))).checks["E1"].passed


def test_long_lists_are_counted_after_the_first_differences() -> None:
    found = check_files([file(f"f{number}", None) for number in range(5)])
    assert not found.passed
    assert "f2" in found.detail
    assert "f3" not in found.detail
    assert found.detail.endswith("and 2 more")
