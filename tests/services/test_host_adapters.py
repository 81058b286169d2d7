"""LoRA adapters on really loaded models: what peft computes, and what the audit proves."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hub.adapted import load_adapted, save_adapter
from tests.hub.models import get_model_folder
from tests.hub.quantized import load, nf4
from tests.services.adapted import add_adapter
from tests.services.hosts import (
    flip_last_byte,
    make_snapshot,
    make_spec,
    quantized,
    replace_bytes,
    runtime_folder,
    store_snapshot,
)
from warmrack_store.errors import Integrity, NotExact, Proof
from warmrack_store.receipts import Level, Receipt
from warmrack_store.resolution import QuantizationSource
from warmrack_workers.adapters import attach, gather_all, make_bare
from warmrack_workers.audit import check_files, find_failure, judge
from warmrack_workers.backends import LoadedModel, get_backend
from warmrack_workers.evidence import inspect_files
from warmrack_workers.host import count_bytes
from warmrack_workers.host_spec import HostSpec
from warmrack_workers.reaudit import audit_again
from warmrack_workers.view import viewed

ADAPTERS = ("tiny_lora", "tiny_lora_wide")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More of them only wait for one another on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime_folder() as folder:
        yield folder


def make(name: str | Path, folder: Path) -> HostSpec:
    adapter = get_model_folder(name) if isinstance(name, str) else name
    spec = make_spec(make_snapshot("tiny_llama", folder / "base"), folder)
    return add_adapter(spec, store_snapshot(adapter, folder / "adapter"))


def bring_up(spec: HostSpec) -> LoadedModel:
    return attach(spec, get_backend(spec.backend).load(spec))


def audit(spec: HostSpec, loaded: LoadedModel) -> tuple[Receipt, Proof | None]:
    evidence = gather_all(spec, loaded)
    receipt = judge(evidence)
    return receipt, find_failure(evidence, receipt)


def answer(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.arange(5, 17)[None])[0]
    return found


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_attached_adapter_answers_as_peft_itself_and_is_proved(name: str, folder: Path) -> None:
    spec = make(name, folder)
    with viewed(spec) as seen:
        loaded = bring_up(seen)
        receipt, failure = audit(seen, loaded)
    assert failure is None
    by_itself = load_adapted(get_model_folder("tiny_llama"), get_model_folder(name))
    assert torch.equal(answer(loaded.model), answer(by_itself))
    plain = answer(load(get_model_folder("tiny_llama")))
    assert not torch.equal(answer(loaded.model), plain)
    assert receipt.level is Level.LOADED
    assert spec.adapter is not None
    assert receipt.tensors == len(spec.leaves) + len(spec.adapter.leaves)
    assert f"{len(spec.adapter.leaves)} of them the adapter's" in receipt.checks["E6"].detail
    assert "peft" in receipt.versions


def test_the_receipt_names_both_pins_and_is_not_identical_to_the_base(folder: Path) -> None:
    spec = make("tiny_lora", folder)
    plain = spec.model_copy(
        update={
            "adapter": None,
            "resolution": spec.resolution.model_copy(update={"adapter": None}),
        }
    )
    receipt, _ = audit(spec, bring_up(spec))
    base, _ = audit(plain, bring_up(plain))
    pin = spec.resolution.adapter
    assert pin is not None
    assert f"{pin.repository} at {pin.commit} attached" in receipt.checks["E1"].detail
    assert receipt.served.adapter is not None
    assert receipt.served.adapter.repository == pin.repository
    assert (base.identical, receipt.identical) == (True, False)
    assert base.tensor_root != receipt.tensor_root
    paths = {file.path for file in receipt.files}
    assert {"adapter_config.json", "adapter_model.safetensors", "model.safetensors"} <= paths


def test_a_flipped_byte_of_the_adapters_file_is_refused_before_the_load(folder: Path) -> None:
    spec = make("tiny_lora", folder)
    assert spec.adapter is not None
    file = spec.adapter.snapshot_dir / "adapter_model.safetensors"
    replace_bytes(file, flip_last_byte, quietly=False)
    found = check_files(inspect_files(spec))
    assert not found.passed
    assert "adapter_model.safetensors" in found.detail


def test_a_byte_flipped_unnoticed_on_disk_is_found_in_memory(folder: Path) -> None:
    spec = make("tiny_lora", folder)
    assert spec.adapter is not None
    file = spec.adapter.snapshot_dir / "adapter_model.safetensors"
    replace_bytes(file, flip_last_byte, quietly=True)
    receipt, failure = audit(spec, bring_up(spec))
    assert isinstance(failure, Integrity)
    assert "base_model.model." in failure.message
    assert receipt.failed == ("E6",)


def _change_adapter(model: Any) -> None:
    model.model.layers[2].mlp.down_proj.lora_B["default"].weight.data[0, 0] += 1


def _change_base(model: Any) -> None:
    model.model.layers[2].mlp.down_proj.base_layer.weight.data[0, 0] += 1


def _change_scaling(model: Any) -> None:
    model.model.layers[2].mlp.down_proj.scaling["default"] = 4.0


def _merge(model: Any) -> None:
    model.model.layers[2].mlp.down_proj.merge()


def _disable(model: Any) -> None:
    model.model.layers[2].mlp.down_proj.enable_adapters(False)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_change_adapter, "E6"),
        (_change_base, "E6"),
        (_change_scaling, "E8"),
        (_merge, "E6"),
        (_disable, "E8"),
    ],
)
def test_what_changes_in_memory_later_is_found_by_the_audit_of_a_warm_model(
    change: Callable[[Any], None], check: str, folder: Path
) -> None:
    spec = make("tiny_lora", folder)
    with viewed(spec) as seen:
        loaded = bring_up(seen)
    report, failure = audit_again(spec, loaded, 1)
    assert failure is None
    assert report.tensor_root
    change(loaded.model)
    report, failure = audit_again(spec, loaded, 1)
    assert failure is not None
    assert "layers.2.mlp.down_proj" in failure.message
    assert not report.checks[check].passed


def test_the_bare_model_is_the_base_and_the_served_one_stays_adapted(folder: Path) -> None:
    loaded = bring_up(make("tiny_lora_wide", folder))
    before = answer(loaded.model)
    bare, plain = make_bare(loaded.model), load(get_model_folder("tiny_llama"))
    assert list(bare.state_dict()) == list(plain.state_dict())
    assert torch.equal(answer(bare), answer(plain))
    assert torch.equal(answer(loaded.model), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_adapters_tensors_keep_their_stored_dtype(dtype: torch.dtype, folder: Path) -> None:
    changed = folder / "lora"
    shutil.copytree(get_model_folder("tiny_lora"), changed)
    tensors = {name: one.to(dtype) for name, one in load_file(changed / WEIGHTS).items()}
    save_file(tensors, changed / WEIGHTS)
    spec = make(changed, folder)
    loaded = bring_up(spec)
    _, failure = audit(spec, loaded)
    assert failure is None
    assert loaded.model.model.layers[0].self_attn.q_proj.lora_A["default"].weight.dtype == dtype
    assert answer(loaded.model).dtype == torch.float32


def test_a_wider_adapter_is_not_narrowed_to_its_bases_dtype(folder: Path) -> None:
    spec = make("tiny_lora", folder)
    changes = {"cast": "bf16", "precision": "bf16"}
    resolution = spec.resolution.model_copy(update=changes)
    spec = spec.model_copy(update={"resolution": resolution})
    loaded = bring_up(spec)
    _, failure = audit(spec, loaded)
    assert failure is None
    by_itself = load_adapted(
        get_model_folder("tiny_llama"), get_model_folder("tiny_lora"), dtype=torch.bfloat16
    )
    assert torch.equal(answer(loaded.model), answer(by_itself))


def test_an_adapter_goes_on_a_base_that_is_quantized_at_the_load(folder: Path) -> None:
    spec = quantized(make("tiny_lora", folder), "nf4", QuantizationSource.ON_THE_FLY)
    loaded = bring_up(spec)
    receipt, failure = audit(spec, loaded)
    assert failure is None
    assert "nf4, quantized at the load" in receipt.checks["E4"].detail
    by_itself = load_adapted(
        get_model_folder("tiny_llama"), get_model_folder("tiny_lora"), quantization_config=nf4()
    )
    assert torch.equal(answer(loaded.model), answer(by_itself))


WEIGHTS = "adapter_model.safetensors"


def test_a_layer_that_the_file_has_no_tensors_for_is_refused(folder: Path) -> None:
    changed = folder / "lora"
    shutil.copytree(get_model_folder("tiny_lora"), changed)
    tensors = load_file(changed / WEIGHTS)
    save_file(
        {name: one for name, one in tensors.items() if ".layers.3." not in name}, changed / WEIGHTS
    )
    spec = make(changed, folder)
    _, failure = audit(spec, bring_up(spec))
    assert isinstance(failure, NotExact)
    assert "comes from no file" in failure.message


def test_tensors_that_the_config_makes_no_layer_for_are_refused(folder: Path) -> None:
    changed = folder / "lora"
    shutil.copytree(get_model_folder("tiny_lora"), changed)
    path = changed / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "target_modules": ["q_proj"]}))
    spec = make(changed, folder)
    _, failure = audit(spec, bring_up(spec))
    assert isinstance(failure, NotExact)
    assert "is unexpected" in failure.message


def test_an_adapter_that_does_not_fit_the_base_is_refused(folder: Path) -> None:
    changed = folder / "lora"
    changed.mkdir()
    save_adapter(changed, target_modules=["q_proj"], r=8)
    path = changed / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "r": 2}))
    with pytest.raises(NotExact, match="cannot be attached"):
        bring_up(make(changed, folder))


def test_bytes_in_memory_include_the_adapter(folder: Path) -> None:
    spec = make("tiny_lora", folder)
    loaded = bring_up(spec)
    pin = spec.resolution.adapter
    assert pin is not None
    assert count_bytes(loaded.model) - count_bytes(make_bare(loaded.model)) == pin.memory_bytes
