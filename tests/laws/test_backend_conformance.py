"""What every backend of the table owes: the model that was resolved, or an error of the tree."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.services.hosts import make_snapshot, make_spec, quantized, runtime_folder
from warmrack_store.errors import NotSupported, WarmrackError
from warmrack_store.resolution import QuantizationSource
from warmrack_workers.audit import find_failure, judge
from warmrack_workers.backends import BACKENDS, get_backend, get_entry
from warmrack_workers.evidence import gather_evidence
from warmrack_workers.host_spec import HostSpec

MODELS = ["tiny_llama", "tiny_llama_sharded", "tiny_qwen", "tiny_gemma", "tiny_moe", "tiny_bert"]

SAFETENSORS = sorted(BACKENDS.keys() - {"gguf"})
"""tests/services/test_host_gguf.py holds the one that reads another format to the same."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More of them only wait for one another on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime_folder() as folder:
        yield folder


def make(name: str, backend: str, folder: Path) -> HostSpec:
    spec = make_spec(make_snapshot(name, folder / "cache"), folder, backend=backend)
    if backend == "bnb":
        return quantized(spec, "nf4", QuantizationSource.ON_THE_FLY)
    return spec


@pytest.mark.parametrize("backend", SAFETENSORS)
@pytest.mark.parametrize("name", MODELS)
def test_what_a_backend_loads_passes_the_audit(name: str, backend: str, folder: Path) -> None:
    spec = make(name, backend, folder)
    loaded = get_backend(backend).load(spec)
    evidence = gather_evidence(spec, loaded)
    receipt = judge(evidence)
    assert find_failure(evidence, receipt) is None
    assert receipt.tensors == len(spec.leaves)
    assert not loaded.model.training
    assert loaded.tokenizer is not None


@pytest.mark.parametrize("backend", SAFETENSORS)
@pytest.mark.parametrize("path", ["config.json", "model.safetensors", "tokenizer.json"])
def test_broken_file_is_an_error_of_the_tree(path: str, backend: str, folder: Path) -> None:
    spec = make("tiny_llama", backend, folder)
    blob = (spec.snapshot_dir / path).resolve()
    blob.write_bytes(blob.read_bytes()[:-20])
    with pytest.raises(WarmrackError) as raised:
        get_backend(backend).load(spec)
    assert spec.model in raised.value.message


@pytest.mark.parametrize("backend", BACKENDS)
def test_table_names_what_it_holds(backend: str) -> None:
    assert get_entry(backend).name == backend


def test_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotSupported, match="exact"):
        get_entry("magic")
