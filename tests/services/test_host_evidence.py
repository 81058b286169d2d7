"""What the audit sees in really loaded models: renamed, merged and tied tensors included."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.services.hosts import make_snapshot, make_spec, runtime_folder
from warmrack_store.errors import Integrity, NotExact, NotSupported, Proof
from warmrack_workers.audit import find_failure, judge
from warmrack_workers.backends import LoadedModel
from warmrack_workers.backends.exact import ExactBackend
from warmrack_workers.evidence import gather_evidence, inspect_files
from warmrack_workers.host_spec import HostSpec
from warmrack_workers.view import viewed


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More of them only wait for one another on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime_folder() as folder:
        yield folder


def load(name: str, folder: Path) -> tuple[HostSpec, LoadedModel]:
    spec = make_spec(make_snapshot(name, folder / "cache"), folder)
    return spec, ExactBackend().load(spec)


def audit(spec: HostSpec, loaded: LoadedModel) -> Proof | None:
    evidence = gather_evidence(spec, loaded)
    return find_failure(evidence, judge(evidence))


def rewrite_weights(snapshot: Path, rename: Any) -> None:
    """The same tensors under other names."""
    weights = (snapshot / "model.safetensors").resolve()
    tensors = {rename(name): tensor for name, tensor in load_file(weights).items()}
    weights.unlink()
    save_file(tensors, weights, metadata={"format": "pt"})


def test_one_changed_bit_in_memory_is_found(folder: Path) -> None:
    spec, loaded = load("tiny_llama", folder)
    loaded.model.model.layers[2].mlp.up_proj.weight.data.view(torch.uint8)[3, 5] ^= 1
    failure = audit(spec, loaded)
    assert isinstance(failure, Integrity)
    assert "model.layers.2.mlp.up_proj.weight" in failure.message


def test_experts_merged_by_the_library_are_proved_from_their_parts(folder: Path) -> None:
    spec, loaded = load("tiny_moe", folder)
    assert any("experts.3" in name for name in spec.leaves)
    assert "model.layers.1.mlp.experts.gate_up_proj" in loaded.model.state_dict()
    assert audit(spec, loaded) is None


def test_one_changed_bit_in_a_merged_expert_is_found(folder: Path) -> None:
    spec, loaded = load("tiny_moe", folder)
    loaded.model.model.layers[1].mlp.experts.down_proj.data.view(torch.uint8)[2, 0, 0] ^= 1
    failure = audit(spec, loaded)
    assert isinstance(failure, NotExact)
    assert "model.layers.1" in failure.message


def test_legacy_layer_norm_names_are_followed(folder: Path) -> None:
    snapshot = make_snapshot("tiny_bert", folder / "cache")
    rewrite_weights(
        snapshot,
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ),
    )
    spec = make_spec(snapshot, folder)
    assert any(name.endswith("LayerNorm.gamma") for name in spec.leaves)
    assert audit(spec, ExactBackend().load(spec)) is None


def test_base_model_prefix_in_the_checkpoint_is_followed(folder: Path) -> None:
    snapshot = make_snapshot("tiny_bert", folder / "cache")
    rewrite_weights(snapshot, lambda name: f"bert.{name}")
    spec = make_spec(snapshot, folder)
    assert audit(spec, ExactBackend().load(spec)) is None


def test_tied_output_layer_is_listed_not_missing(folder: Path) -> None:
    spec, loaded = load("tiny_gemma", folder)
    assert "lm_head.weight" not in spec.leaves
    evidence = gather_evidence(spec, loaded)
    assert evidence.tied == ("lm_head.weight",)
    assert evidence.unbacked == ()
    assert find_failure(evidence, judge(evidence)) is None


def test_parameter_that_no_file_holds_fails(folder: Path) -> None:
    """The library fills it with random numbers and only warns."""
    snapshot = make_snapshot("tiny_bert", folder / "cache")
    weights = (snapshot / "model.safetensors").resolve()
    tensors = load_file(weights)
    del tensors["pooler.dense.weight"]
    weights.unlink()
    save_file(tensors, weights, metadata={"format": "pt"})
    spec = make_spec(snapshot, folder)
    failure = audit(spec, ExactBackend().load(spec))
    assert isinstance(failure, NotExact)
    assert "pooler.dense.weight" in failure.message


def test_tensor_that_the_class_has_no_place_for_fails(folder: Path) -> None:
    snapshot = make_snapshot("tiny_llama", folder / "cache")
    rewrite_weights(snapshot, lambda name: "extra" if name == "model.norm.weight" else name)
    spec = make_spec(snapshot, folder)
    failure = audit(spec, ExactBackend().load(spec))
    assert isinstance(failure, NotExact)
    assert "extra is unexpected" in failure.message


def test_token_added_after_the_load_is_found(folder: Path) -> None:
    spec, loaded = load("tiny_llama", folder)
    assert loaded.tokenizer is not None
    loaded.tokenizer.add_tokens(["<new>"])
    failure = audit(spec, loaded)
    assert isinstance(failure, NotExact)
    assert "'<new>'" in failure.message


def test_config_changed_in_memory_is_found(folder: Path) -> None:
    spec, loaded = load("tiny_llama", folder)
    loaded.model.config.rms_norm_eps = 0.5
    failure = audit(spec, loaded)
    assert isinstance(failure, NotExact)
    assert "rms_norm_eps is 0.5" in failure.message


def test_dtype_changed_after_the_load_is_found(folder: Path) -> None:
    spec, loaded = load("tiny_llama", folder)
    loaded.model.to(torch.bfloat16)
    failure = audit(spec, loaded)
    assert isinstance(failure, NotExact)
    assert "is BF16, stored as F32" in failure.message


def test_untouched_weights_are_not_read_again_from_disk(folder: Path) -> None:
    spec = make_spec(make_snapshot("tiny_llama", folder / "cache"), folder)
    read = {file.path: file.read for file in inspect_files(spec)}
    assert not read["model.safetensors"]
    assert read["config.json"]
    assert read["tokenizer.json"]


def test_file_that_was_not_resolved_is_out_of_sight(folder: Path) -> None:
    spec = make_spec(make_snapshot("tiny_llama", folder / "cache"), folder)
    (spec.snapshot_dir / "special_tokens_map.json").write_text('{"pad_token": "<stray>"}')
    with viewed(spec) as seen:
        shown = {path.name for path in seen.snapshot_dir.iterdir()}
        assert shown == {file.path for file in spec.resolution.files}
        assert all(file.actual == file.expected for file in inspect_files(seen))
    assert not seen.snapshot_dir.exists()


def test_class_unknown_to_the_library_is_refused(folder: Path) -> None:
    spec = make_spec(make_snapshot("tiny_llama", folder / "cache"), folder)
    resolution = spec.resolution.model_copy(update={"architecture": "AutoModel"})
    with pytest.raises(NotSupported, match="AutoModel"):
        ExactBackend().load(spec.model_copy(update={"resolution": resolution}))
