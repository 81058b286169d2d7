"""Estimates against models of every family that were really loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hub.families import (
    FAMILIES,
    QUANTIZATIONS,
    get_class,
    make_quantization,
    read_saved,
    save_family,
)
from tests.hub.held import read_cache_bytes, read_held
from warmrack_store.resolution import Memory, Quantization, QuantizationSource
from warmrack_store.resolver.memory import estimate_memory

GENERATING = sorted(
    name
    for name, family in FAMILIES.items()
    if family.model.endswith(("ForCausalLM", "LMHeadModel"))
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a family's tiny model, saved once."""
    root = tmp_path_factory.mktemp("families")

    def save(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            save_family(name, folder)
        return folder

    return save


def load(name: str, folder: Path, dtype: torch.dtype = torch.bfloat16, method: str = "") -> Any:
    quantizing = {"quantization_config": make_quantization(method)} if method else {}
    return get_class(name).from_pretrained(folder, dtype=dtype, **quantizing).eval()


def estimate(folder: Path, method: str = "", **options: Any) -> Memory:
    config, files = read_saved(folder)
    if method:
        options["quantization"] = Quantization(
            method=method, source=QuantizationSource.ON_THE_FLY, compute_dtype="bf16"
        )
    return estimate_memory(config, files, options.pop("max_seq_length", None), **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_weights_are_estimated_to_the_byte(name: str, saved: Any) -> None:
    folder = saved(name)
    held, memory = read_held(load(name, folder)), estimate(folder)
    assert (memory.weights_bytes, memory.quantization_state_bytes) == (held.weights_bytes, 0)


@pytest.mark.parametrize("name", ["llama", "deepseek_v3", "bert"])
def test_cast_weights_are_estimated_to_the_byte(name: str, saved: Any) -> None:
    folder = saved(name)
    held = read_held(load(name, folder, dtype=torch.float32))
    assert estimate(folder, cast="fp32").weights_bytes == held.weights_bytes


@pytest.mark.parametrize("method", QUANTIZATIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_quantized_weights_and_their_state_are_estimated_to_the_byte(
    name: str, method: str, saved: Any
) -> None:
    folder = saved(name)
    held, memory = read_held(load(name, folder, method=method)), estimate(folder, method)
    assert memory.weights_bytes == held.weights_bytes
    assert memory.quantization_state_bytes == held.state_bytes


@pytest.mark.parametrize("method", QUANTIZATIONS)
def test_a_forward_pass_leaves_no_quantized_copy_behind(method: str, saved: Any) -> None:
    model = load("llama", saved("llama"), method=method)
    before = read_held(model)
    with torch.inference_mode():
        model(input_ids=torch.ones(1, 4, dtype=torch.long))
    assert read_held(model) == before


@pytest.mark.parametrize("name", GENERATING)
def test_the_cache_is_estimated_to_the_byte(name: str, saved: Any) -> None:
    """After a step of decoding, when a sliding layer has let go of what left its window."""
    folder, batch, tokens = saved(name), 2, 20
    model = load(name, folder)
    with torch.inference_mode():
        prompt = torch.ones(batch, tokens - 1, dtype=torch.long)
        cache = model(input_ids=prompt, use_cache=True).past_key_values
        model(input_ids=prompt[:, :1], past_key_values=cache, use_cache=True)
    memory = estimate(folder, max_seq_length=tokens, batch=batch)
    assert memory.cache_bytes == read_cache_bytes(cache)
