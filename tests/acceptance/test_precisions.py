"""Casts and quantizations through the real processes: what answers, and what the receipt says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub
from tests.hub.models import get_model_folder

pytestmark = pytest.mark.slow

PLAIN, NF4, INT8 = "acme/plain", "acme/stored-nf4", "acme/stored-int8"
PACKED = "acme/packed"
FOLDERS = {
    PLAIN: "tiny_llama",
    NF4: "tiny_llama_nf4",
    INT8: "tiny_llama_int8",
    PACKED: "tiny_llama_gguf",
}
ON_THE_FLY = ("--mode", "optimized", "--quantize", "on_the_fly")
PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def stack(hub: Hub) -> Iterator[Stack]:
    for name, folder in FOLDERS.items():
        hub.add_repository(name, get_model_folder(folder))
    with running_stack(hub) as running:
        yield running


def load(stack: Stack, model: str, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job and its receipt, of the only resident."""
    stack.run("unload", "--all")
    code, job = stack.run_json("load", model, *options)
    assert code == 0, job
    code, receipt = stack.run_json("receipt", job["id"])
    assert code == 0
    assert receipt["level"] == "loaded"
    return job, receipt


def say(stack: Stack, job: dict[str, Any], model: str, request: dict[str, Any]) -> str:
    payload = {"prompt": PROMPT, "max_tokens": 24}
    with stack.client() as client:
        text: str = client.run_task(model, "generate", payload, **request)["text"]
        assert [resident.id for resident in client.residents()] == [job["resident"]]
    return text


def say_in_process(model: str, options: str) -> str:
    """By the library alone, in an interpreter of its own, so that this one stays free of torch."""
    code = (
        "import sys, torch, transformers as t\n"
        f"options = {options}\n"
        "model = t.AutoModelForCausalLM.from_pretrained(sys.argv[1], **options)\n"
        "file = {name: options[name] for name in options if name == 'gguf_file'}\n"
        "tok = t.AutoTokenizer.from_pretrained(sys.argv[1], **file)\n"
        "ids = tok(sys.argv[2], return_tensors='pt')\n"
        "out = model.generate(**ids, max_new_tokens=24, do_sample=False)\n"
        "new = out[0, ids['input_ids'].shape[1]:]\n"
        "sys.stdout.buffer.write(tok.decode(new, skip_special_tokens=True).encode())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        [*command, str(get_model_folder(FOLDERS[model])), PROMPT],
        capture_output=True,
        check=True,
        timeout=120,
    )
    return done.stdout.decode()


BNB = {
    "nf4": "{'dtype': torch.float32, 'quantization_config': t.BitsAndBytesConfig("
    "load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True, "
    "bnb_4bit_compute_dtype=torch.float32)}",
    "int8": "{'dtype': torch.float32, "
    "'quantization_config': t.BitsAndBytesConfig(load_in_8bit=True)}",
}


@pytest.mark.parametrize("method", BNB)
def test_a_model_quantized_at_the_load_answers_as_the_library_alone_does(
    stack: Stack, method: str
) -> None:
    job, receipt = load(stack, PLAIN, "--precision", method, *ON_THE_FLY)
    assert job["resolution"]["precision"] == method
    assert job["resolution"]["substitution"] == "quantized"
    assert receipt["served"]["precision"] == method
    assert receipt["identical"] is False
    assert "at the load" in receipt["checks"]["E4"]["detail"]
    request = {"mode": "optimized", "precision": method, "quantize": "on_the_fly"}
    assert say(stack, job, PLAIN, request) == say_in_process(PLAIN, BNB[method])


@pytest.mark.parametrize(("model", "method"), [(NF4, "nf4"), (INT8, "int8")])
def test_a_checkpoint_stored_quantized_is_exact_as_it_is(
    stack: Stack, model: str, method: str
) -> None:
    job, receipt = load(stack, model)
    assert job["resolution"]["precision"] == method
    assert (receipt["identical"], receipt["served"]["precision"]) == (True, method)
    assert say(stack, job, model, {}) == say_in_process(model, "{'dtype': torch.float32}")


def test_a_gguf_file_is_named_by_its_quantization_and_proved(stack: Stack) -> None:
    code, refused = stack.run_json("load", PACKED)
    assert (code, refused["error"]["code"]) == (3, "not-supported")
    assert "gguf:Q4_0, gguf:Q8_0" in refused["error"]["hint"]
    job, receipt = load(stack, PACKED, "--precision", "gguf:Q4_0")
    assert [file["path"] for file in receipt["files"]] == ["tiny-llama.Q4_0.gguf"]
    assert (receipt["identical"], receipt["served"]["precision"]) == (True, "gguf:Q4_0")
    options = "{'dtype': torch.float32, 'gguf_file': 'tiny-llama.Q4_0.gguf'}"
    assert say(stack, job, PACKED, {"precision": "gguf:Q4_0"}) == say_in_process(PACKED, options)


def test_a_cast_is_declared_and_has_a_resident_of_its_own(stack: Stack) -> None:
    stored, plain_receipt = load(stack, PLAIN)
    code, job = stack.run_json("load", PLAIN, "--precision", "bf16")
    assert code == 0, job
    assert job["resident"] != stored["resident"]
    code, receipt = stack.run_json("receipt", job["id"])
    assert receipt["level"] == "loaded"
    assert (receipt["served"]["precision"], receipt["identical"]) == ("bf16", False)
    assert "in bf16 as asked" in receipt["checks"]["E5"]["detail"]
    assert receipt["tensor_root"] != plain_receipt["tensor_root"]


def test_a_flipped_byte_of_a_packed_weight_is_not_served(stack: Stack) -> None:
    load(stack, NF4)
    stack.run("unload", "--all")
    commit = stack.hub.get_commit(NF4).sha
    snapshot = stack.cache_dir / "models--acme--stored-nf4" / "snapshots" / commit
    _flip_last_byte((snapshot / "model.safetensors").resolve())
    code, answer = stack.run_json("load", NF4)
    assert (code, answer["error"]["code"]) == (5, "integrity")


def _flip_last_byte(path: Path) -> None:
    """In place, with the times put back, so that only the bytes tell."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
