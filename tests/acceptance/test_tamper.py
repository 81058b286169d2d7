"""A cache that was tampered with after verification is never served."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub
from tests.hub.models import get_model_folder

NAME = "acme/tampered"


@pytest.fixture(scope="module")
def stack(hub: Hub) -> Iterator[Stack]:
    hub.add_repository(NAME, get_model_folder("tiny_llama"))
    with running_stack(hub) as running:
        yield running


@pytest.fixture
def snapshot(stack: Stack) -> Path:
    """The verified snapshot on disk, good again, and the model cold."""
    code, job = stack.run_json("prefetch", NAME)
    assert code == 0, job
    stack.run("unload", NAME)
    commit = stack.hub.get_commit(NAME).sha
    return stack.cache_dir / "models--acme--tampered" / "snapshots" / commit


def _flip_byte(path: Path, offset: int) -> os.stat_result:
    """Flip one bit in place, keeping inode, size and times as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return before


def test_flipped_byte_of_a_weight_fails_the_load_with_integrity(
    stack: Stack, snapshot: Path
) -> None:
    weights = (snapshot / "model.safetensors").resolve()
    _flip_byte(weights, weights.stat().st_size - 10)
    code, answer = stack.run_json("load", NAME)
    assert (code, answer["error"]["code"]) == (5, "integrity")
    with stack.client() as client:
        assert client.residents() == ()
    code, job = stack.run_json("load", NAME)
    assert code == 0, f"the bad copy is verified anew and fetched again: {job}"


def test_changed_config_fails_the_load_with_integrity(stack: Stack, snapshot: Path) -> None:
    config = (snapshot / "config.json").resolve()
    before = config.stat()
    text = config.read_text()
    changed = text.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05')
    assert changed != text
    assert len(changed) == len(text)
    config.write_text(changed)
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, answer = stack.run_json("load", NAME)
    assert (code, answer["error"]["code"]) == (5, "integrity")
    assert "config.json" in answer["error"]["message"]


def test_change_that_shows_in_the_files_times_is_fetched_anew(stack: Stack, snapshot: Path) -> None:
    weights = (snapshot / "model.safetensors").resolve()
    with weights.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"\x00\x01\x02")
    code, job = stack.run_json("load", NAME)
    assert code == 0, job
    code, receipt = stack.run_json("receipt", job["id"])
    assert receipt["identical"] is True
