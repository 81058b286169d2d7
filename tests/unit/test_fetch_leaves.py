"""Tensor leaves of files that safetensors wrote."""

from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from warmrack_store.errors import Cancelled, UnsafeFormat
from warmrack_store.tensors import leaf_digest
from warmrack_workers.fetch.leaves import hash_leaves

ARRAYS: dict[str, NDArray[Any]] = {
    "b": np.arange(300_000, dtype=np.float32).reshape(300, 1000),
    "a": np.arange(7, dtype=np.int8),
    "empty": np.zeros((0, 3), dtype=np.float16),
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(ARRAYS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_each_leaf_is_that_of_the_tensors_own_bytes(weights: Path) -> None:
    names = {"float32": "F32", "int8": "I8", "float16": "F16"}
    assert {leaf.name: leaf.leaf for leaf in hash_leaves(weights)} == {
        name: leaf_digest(names[str(array.dtype)], array.shape, array.tobytes())
        for name, array in ARRAYS.items()
    }


def test_one_changed_byte_changes_one_leaf(weights: Path) -> None:
    before = {leaf.name: leaf.leaf for leaf in hash_leaves(weights)}
    body = bytearray(weights.read_bytes())
    body[body.index(ARRAYS["b"].tobytes()) + 5] ^= 1
    weights.write_bytes(body)
    after = {leaf.name: leaf.leaf for leaf in hash_leaves(weights)}
    assert {name for name in before if before[name] != after[name]} == {"b"}


def test_where_the_tensors_lie_in_the_file_does_not_matter(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"b": ARRAYS["b"]}, other, metadata={"made": "by hand"})
    (alone,) = hash_leaves(other)
    assert alone in hash_leaves(weights)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x02\x00\x00\x00\x00\x00\x00\x00{}x"])
def test_a_malformed_file_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "x").write_bytes(body)
    with pytest.raises(UnsafeFormat):
        hash_leaves(tmp_path / "x")


def test_hashing_stops_when_told_to(weights: Path) -> None:
    halt = Event()
    halt.set()
    with pytest.raises(Cancelled):
        hash_leaves(weights, halt)
