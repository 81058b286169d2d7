"""Tensor digests: a leaf per tensor, and the root over a model that no sharding changes.

A leaf is BLAKE3 over a tensor's dtype, shape and bytes; the root is BLAKE3 over the names and
leaves in the byte order of the names. BLAKE3 because it hashes 7.5 GiB/s a core where sha256
reaches 1.9.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3

_LEAF = b"warmrack.leaf.v1\x00"
_ROOT = b"warmrack.root.v1\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLeaf:
    """One tensor of a file: its dtype in safetensors' spelling, its shape, and its digest."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    leaf: str


def leaf_digest(dtype: str, shape: Sequence[int], data: memoryview | bytes) -> str:
    """Hex digest of one tensor; `dtype` in safetensors' spelling, `data` little-endian, row-major."""
    head = _LEAF + f"{dtype}:{','.join(map(str, shape))}".encode() + b"\x00"
    return blake3(head).update(data).hexdigest()


def root_digest(leaves: Mapping[str, str]) -> str:
    """Hex digest over all (name, leaf) pairs."""
    hasher = blake3(_ROOT)
    for name in sorted(leaves, key=str.encode):
        hasher.update(name.encode() + b"\x00" + bytes.fromhex(leaves[name]))
    return hasher.hexdigest()
