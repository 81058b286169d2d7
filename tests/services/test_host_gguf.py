"""GGUF files in really loaded models: unpacked by the library, and once more by ggml's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from tests.hub.models import get_model_folder
from tests.services.hosts import (
    flip_last_byte,
    make_gguf_spec,
    make_snapshot,
    replace_bytes,
    runtime_folder,
)
from warmrack_store.errors import Integrity, NotExact, Proof, WarmrackError
from warmrack_store.receipts import Level, Receipt
from warmrack_workers.audit import check_files, find_failure, judge
from warmrack_workers.backends import LoadedModel, get_backend
from warmrack_workers.evidence import gather_evidence, inspect_files
from warmrack_workers.host_spec import HostSpec

FILES = [
    ("tiny_llama_gguf", "tiny-llama.Q8_0.gguf", "Q8_0"),
    ("tiny_llama_gguf", "tiny-llama.Q4_0.gguf", "Q4_0"),
    ("tiny_qwen_gguf", "tiny-qwen-Q8_0.gguf", "Q8_0"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More of them only wait for one another on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime_folder() as folder:
        yield folder


def make(name: str, kind: str, folder: Path) -> HostSpec:
    return make_gguf_spec(make_snapshot(name, folder / "cache"), folder, kind)


def audit(spec: HostSpec, loaded: LoadedModel) -> tuple[Receipt, Proof | None]:
    evidence = gather_evidence(spec, loaded)
    receipt = judge(evidence)
    return receipt, find_failure(evidence, receipt)


def answer(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.arange(5, 17)[None])[0]
    return found


@pytest.mark.parametrize(("name", "path", "kind"), FILES)
def test_a_gguf_file_is_unpacked_and_proved_by_a_second_unpacking(
    name: str, path: str, kind: str, folder: Path
) -> None:
    spec = make(name, kind, folder)
    assert [file.path for file in spec.resolution.files] == [path]
    loaded = get_backend("gguf").load(spec)
    receipt, failure = audit(spec, loaded)
    assert failure is None
    assert (receipt.level, receipt.identical) == (Level.LOADED, True)
    assert receipt.served.precision == f"gguf:{kind}"
    assert receipt.checks["E4"].detail == f"gguf:{kind} as stored, unpacked into fp32"
    assert "unpacked once more by ggml's own library" in receipt.checks["E6"].detail
    assert receipt.tensors == len(loaded.model.state_dict())
    by_itself = type(loaded.model).from_pretrained(
        get_model_folder(name), gguf_file=path, dtype=torch.float32
    )
    assert torch.equal(answer(loaded.model), answer(by_itself))


def test_the_tokenizer_of_a_gguf_file_is_the_models_own(folder: Path) -> None:
    tokenizer = get_backend("gguf").load(make("tiny_llama_gguf", "Q8_0", folder)).tokenizer
    own = transformers.AutoTokenizer.from_pretrained(get_model_folder("tiny_llama"))
    assert tokenizer is not None
    assert tokenizer("The quick brown fox")["input_ids"] == own("The quick brown fox")["input_ids"]
    assert tokenizer.chat_template == own.chat_template


@pytest.mark.parametrize("name", ["tiny_llama_gguf", "tiny_qwen_gguf"])
def test_one_changed_bit_of_an_unpacked_weight_is_found(name: str, folder: Path) -> None:
    spec = make(name, "Q8_0", folder)
    loaded = get_backend("gguf").load(spec)
    loaded.model.model.layers[2].self_attn.k_proj.weight.data.view(torch.uint8)[3, 5] ^= 1
    receipt, failure = audit(spec, loaded)
    assert isinstance(failure, Integrity)
    assert receipt.failed == ("E6",)
    assert "blk.2.attn_k.weight" in failure.message


def test_a_token_that_the_file_does_not_name_is_found(folder: Path) -> None:
    spec = make("tiny_llama_gguf", "Q8_0", folder)
    loaded = get_backend("gguf").load(spec)
    assert loaded.tokenizer is not None
    loaded.tokenizer.add_tokens(["<new>"])
    _, failure = audit(spec, loaded)
    assert isinstance(failure, NotExact)
    assert "'<new>'" in failure.message


def test_a_config_changed_in_memory_is_found(folder: Path) -> None:
    spec = make("tiny_llama_gguf", "Q8_0", folder)
    loaded = get_backend("gguf").load(spec)
    loaded.model.config.rms_norm_eps = 0.5
    _, failure = audit(spec, loaded)
    assert isinstance(failure, NotExact)
    assert "rms_norm_eps is 0.5" in failure.message


def test_a_changed_byte_of_the_file_is_never_parsed(folder: Path) -> None:
    spec = make("tiny_llama_gguf", "Q8_0", folder)
    replace_bytes(spec.snapshot_dir / spec.resolution.weights[0], flip_last_byte, quietly=False)
    assert not check_files(inspect_files(spec)).passed


def test_a_file_that_ends_early_is_an_error_of_the_tree(folder: Path) -> None:
    spec = make("tiny_llama_gguf", "Q8_0", folder)
    file = (spec.snapshot_dir / spec.resolution.weights[0]).resolve()
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(WarmrackError, match="tests/tiny"):
        get_backend("gguf").load(spec)
