"""LoRA adapters through the real processes: both pins, the same answers, and what is refused."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import BERT
from tests.acceptance.stack import Stack, running_stack
from tests.hub.adapter_bases import name_base
from tests.hub.control import Hub
from tests.hub.models import get_model_folder
from warmrack_store import errors

pytestmark = pytest.mark.slow

BASE, OTHER = "acme/lora-base", "acme/lora-other"
LORA, PINNED, LOST = "acme/lora", "acme/lora-pinned", "acme/lora-lost"
PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def old_commit(hub: Hub) -> str:
    """The base's first commit; its branch has moved on to another model since."""
    hub.add_repository(BASE, get_model_folder("tiny_llama"))
    first = hub.get_commit(BASE).sha
    hub.add_commit(BASE, folder=get_model_folder("tiny_qwen"))
    return first


@pytest.fixture(scope="module")
def stack(hub: Hub, old_commit: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    hub.add_repository(OTHER, get_model_folder("tiny_llama"))
    named = {LORA: (OTHER, None), PINNED: (BASE, old_commit), LOST: ("acme/nowhere", None)}
    for name, (base, revision) in named.items():
        folder = tmp_path_factory.mktemp("lora") / "lora"
        shutil.copytree(get_model_folder("tiny_lora"), folder)
        name_base(folder, base, revision)
        hub.add_repository(name, folder)
    with running_stack(hub) as running:
        yield running


def load(stack: Stack, model: str, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    code, job = stack.run_json("load", model, *options)
    assert code == 0, job
    code, receipt = stack.run_json("receipt", job["id"])
    assert code == 0
    return job, receipt


def say_in_process() -> str:
    """By transformers and peft alone, in an interpreter of its own."""
    code = (
        "import sys, transformers as t, peft\n"
        "model = t.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype='auto')\n"
        "model = peft.PeftModel.from_pretrained(model, sys.argv[2])\n"
        "tok = t.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "ids = tok(sys.argv[3], return_tensors='pt')\n"
        "out = model.generate(**ids, max_new_tokens=24, do_sample=False)\n"
        "new = out[0, ids['input_ids'].shape[1]:]\n"
        "sys.stdout.buffer.write(tok.decode(new, skip_special_tokens=True).encode())\n"
    )
    folders = [str(get_model_folder(name)) for name in ("tiny_llama", "tiny_lora")]
    command = [sys.executable, "-W", "ignore", "-c", code, *folders, PROMPT]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    return done.stdout.decode()


def say(stack: Stack, model: str, **request: Any) -> str:
    payload = {"prompt": PROMPT, "max_tokens": 24}
    with stack.client() as client:
        return str(client.run_task(model, "generate", payload, **request)["text"])


def test_an_adapter_alone_is_loaded_on_its_base_and_answers_as_in_process(stack: Stack) -> None:
    job, receipt = load(stack, LORA)
    assert job["resolution"]["repository"] == OTHER
    served = receipt["served"]
    assert served["commit"] == stack.hub.get_commit(OTHER).sha
    assert served["adapter"] == {
        "repository": LORA,
        "commit": stack.hub.get_commit(LORA).sha,
        "how": "attached",
    }
    assert receipt["level"] == "loaded"
    assert all(check["passed"] for check in receipt["checks"].values())
    assert receipt["identical"] is False
    paths = {file["path"] for file in receipt["files"]}
    assert {"model.safetensors", "adapter_model.safetensors", "adapter_config.json"} <= paths
    assert say(stack, LORA) == say_in_process()


def test_the_base_is_the_pinned_revision_though_its_branch_moved(
    stack: Stack, old_commit: str
) -> None:
    _, receipt = load(stack, PINNED)
    assert receipt["served"]["commit"] == old_commit
    assert stack.hub.get_commit(BASE).sha != old_commit
    assert say(stack, PINNED) == say_in_process()


def test_the_same_pair_named_both_ways_is_one_resident_and_the_base_another(stack: Stack) -> None:
    alone, adapted = load(stack, LORA)
    named, _ = load(stack, OTHER, "--adapter", LORA)
    plain, base = load(stack, OTHER)
    assert alone["resident"] == named["resident"] != plain["resident"]
    assert base["identical"] is True
    assert base["tensor_root"] != adapted["tensor_root"]
    assert say(stack, OTHER) != say(stack, OTHER, adapter=LORA)


def test_a_prefetch_brings_both_and_its_receipt_lists_both(stack: Stack) -> None:
    code, job = stack.run_json("prefetch", LORA)
    assert code == 0, job
    _, receipt = stack.run_json("receipt", job["id"])
    assert receipt["level"] == "files"
    assert receipt["served"]["adapter"]["repository"] == LORA
    assert "adapter_model.safetensors" in {file["path"] for file in receipt["files"]}


def test_the_receipt_of_a_warm_adapter_holds_when_all_is_read_again(stack: Stack) -> None:
    job, _ = load(stack, LORA)
    code, again = stack.run_json("receipt", job["id"], "--verify")
    assert code == 0, again
    assert again["passed"] is True
    assert "adapter_model.safetensors" in {file["path"] for file in again["disk"]["files"]}


def test_explain_says_both_pins_and_downloads_nothing(stack: Stack) -> None:
    code, found = stack.run_json("explain", LORA)
    assert code == 0
    assert found["adapter"]["repository"] == LORA
    assert f"adapter {LORA}" in next(x["decision"] for x in found["trail"] if x["rule"] == "R3")


@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        (LOST, {}, errors.AdapterBaseUnresolved),
        (BASE, {"adapter": LORA}, errors.AdapterBaseUnresolved),
        (BERT, {"adapter": LORA, "adapter_base": BERT}, errors.LineageMismatch),
    ],
)
def test_what_cannot_be_paired_is_refused_by_code(
    stack: Stack, model: str, options: dict[str, str], error: type[errors.WarmrackError]
) -> None:
    with stack.client() as client:
        job = client.load(model, **options)
        with pytest.raises(error):
            client.wait(job.id, timeout_seconds=60)


def test_a_changed_byte_of_the_adapter_on_disk_is_never_served(stack: Stack) -> None:
    stack.run("unload", "--all")
    file = next(stack.cache_dir.glob("models--acme--lora/snapshots/*/adapter_model.safetensors"))
    blob = Path(file).resolve()
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    _, receipt = load(stack, LORA)
    assert receipt["level"] == "loaded"
    assert blob.read_bytes() == data
