"""The header of a GGUF file, read strictly: its metadata, and which tensors it holds.

Layout by the GGUF specification, versions 2 and 3 (docs/gguf.md of ggml): all little-endian.
"""

import struct
from dataclasses import dataclass
from math import prod

from warmrack_store.errors import UnsafeFormat
from warmrack_store.facts import GgufHeader, TensorFact

MAX_HEADER_BYTES = 64 * 2**20
"""Vocabularies of 250,000 tokens with their merges take some 12 MB."""
_MAGIC = b"GGUF"
_VERSIONS = frozenset({2, 3})
_MAX_COUNT = 2**20
_MAX_RANK = 4
_KEPT_TEXT = 200
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_TEXT, _ARRAY = 8, 9
_UNPACKED_BYTES = 4


class _TooShort(Exception):
    """The header goes on after the bytes that are there."""


@dataclass(slots=True)
class _Cursor:
    data: bytes
    at: int = 0

    def take(self, size_bytes: int) -> bytes:
        end = self.at + size_bytes
        if end > len(self.data):
            raise _TooShort
        found = self.data[self.at : end]
        self.at = end
        return found

    def number(self, layout: str) -> int | float | bool:
        found: int | float | bool = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return found

    def count(self, layout: str = "<Q") -> int:
        found = int(self.number(layout))
        if found > MAX_HEADER_BYTES:
            raise _nonsense(f"it declares {found} of something")
        return found

    def text(self) -> str:
        return self.take(self.count()).decode("utf-8", "replace")

    def value(self, kind: int) -> int | float | bool | str:
        """A scalar or a text; of an array how many it holds."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            raise _nonsense(f"it has a value of the unknown type {kind}")
        inner, length = self.count("<I"), self.count()
        if inner in _SCALARS:
            self.take(struct.calcsize(_SCALARS[inner]) * length)
        elif inner == _TEXT:
            for _ in range(length):
                self.take(self.count())
        else:
            raise _nonsense(f"it has an array of the type {inner}")
        return length


def parse_gguf(path: str, data: bytes) -> GgufHeader | None:
    """What the first bytes of a file say; None where its header is longer than they are.

    Raises UnsafeFormat for anything else than a GGUF file.
    """
    try:
        return _parse(path, _Cursor(data))
    except _TooShort:
        return None


def _parse(path: str, cursor: _Cursor) -> GgufHeader:
    if cursor.take(len(_MAGIC)) != _MAGIC:
        raise _nonsense("it does not start with GGUF")
    version = cursor.count("<I")
    if version not in _VERSIONS:
        raise _nonsense(f"its version is {version}")
    tensors, pairs = cursor.count(), cursor.count()
    if max(tensors, pairs) > _MAX_COUNT:
        raise _nonsense(f"it declares {tensors} tensors and {pairs} values")
    metadata = {}
    for _ in range(pairs):
        key = cursor.text()[:_KEPT_TEXT]
        value = cursor.value(cursor.count("<I"))
        metadata[key] = value[:_KEPT_TEXT] if isinstance(value, str) else value
    return GgufHeader(
        path=path, metadata=metadata, tensors=tuple(_tensor(cursor) for _ in range(tensors))
    )


def _tensor(cursor: _Cursor) -> TensorFact:
    name = cursor.text()
    rank = cursor.count("<I")
    if rank > _MAX_RANK:
        raise _nonsense(f"tensor {name[:100]!r} has {rank} dimensions")
    shape = tuple(reversed([cursor.count() for _ in range(rank)]))
    cursor.take(struct.calcsize("<IQ"))
    size_bytes = prod(shape) * _UNPACKED_BYTES
    return TensorFact(name=name, dtype="F32", shape=shape, size_bytes=size_bytes)


def _nonsense(reason: str) -> UnsafeFormat:
    return UnsafeFormat(
        f"not a GGUF file: {reason}",
        hint="The publisher's file is malformed, or is another format under this name.",
    )
