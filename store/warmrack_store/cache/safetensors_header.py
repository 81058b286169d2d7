"""The header of a safetensors file, read strictly: which tensors lie where."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from warmrack_store.errors import UnsafeFormat
from warmrack_store.facts import TensorFact

PREFIX_BYTES = 8
"""A little-endian u64: the length of the JSON that follows."""
MAX_JSON_BYTES = 25_000_000
"""As `huggingface_hub.constants.SAFETENSORS_MAX_HEADER_LENGTH`."""
MAX_RANK = 64

BITS: dict[str, int] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits of an element by dtype; every dtype of safetensors 0.8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpan:
    """A tensor and where its bytes lie, counted from the start of the file."""

    fact: TensorFact
    start: int
    end: int


def header_size(prefix: bytes, file_size: int) -> int:
    """Bytes from the file's start to the end of its header, told by its first 8 bytes.

    Raises UnsafeFormat where they cannot be those of a safetensors file of this size.
    """
    if len(prefix) < PREFIX_BYTES:
        raise _nonsense("it is shorter than 8 bytes")
    length = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if length > MAX_JSON_BYTES:
        raise _nonsense(f"its header would have {length} bytes; {MAX_JSON_BYTES} are allowed")
    if PREFIX_BYTES + length > file_size:
        raise _nonsense(f"its header of {length} bytes ends after the file's {file_size}")
    return PREFIX_BYTES + length


def parse_header(data: bytes, file_size: int) -> tuple[TensorFact, ...]:
    """The tensors in the order of their bytes. `data` starts at the file's first byte and holds
    the whole header (see `header_size`); raises UnsafeFormat for anything else or malformed."""
    return tuple(span.fact for span in parse_spans(data, file_size))


def parse_spans(data: bytes, file_size: int) -> tuple[TensorSpan, ...]:
    """As `parse_header`, with places: the spans follow each other without gap or overlap and end
    where the file ends."""
    end = header_size(data, file_size)
    if len(data) < end:
        raise _nonsense(f"only {len(data)} bytes of its header's {end} were read")
    entries = _decode(bytes(data[PREFIX_BYTES:end]))
    spans = sorted(
        (_span(name, entry, end) for name, entry in entries.items() if name != "__metadata__"),
        key=lambda span: (span.start, span.end),
    )
    edges = [end, *(edge for span in spans for edge in (span.start, span.end)), file_size]
    gap = next((pair for pair in list(pairwise(edges))[::2] if pair[0] != pair[1]), None)
    if gap is not None:
        raise _nonsense(f"its tensors leave a gap or overlap between bytes {gap[0]} and {gap[1]}")
    return tuple(spans)


def _decode(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise _nonsense("its header is not a JSON object")
    try:
        entries: dict[str, Any] = json.loads(text, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise _nonsense(f"its header is not valid JSON: {error}") from error
    metadata = entries.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _nonsense("its __metadata__ is not a map of texts")
    return entries


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two tensors of one name would let two readers see different models."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _span(name: str, entry: Any, data_start: int) -> TensorSpan:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _nonsense(f"tensor {name[:100]!r} is not described by dtype, shape, data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _nonsense(f"tensor {name[:100]!r} has the unknown dtype {str(dtype)[:20]!r}")
    if not _are_counts(shape) or not _are_counts(offsets):
        raise _nonsense(f"tensor {name[:100]!r} has a shape or offsets that are no counts")
    if len(shape) > MAX_RANK or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _nonsense(f"tensor {name[:100]!r} has an impossible shape or offsets")
    size_bytes = offsets[1] - offsets[0]
    if math.prod(shape) * BITS[dtype] != size_bytes * 8:
        raise _nonsense(f"tensor {name[:100]!r} has {size_bytes} bytes for {dtype} {shape}")
    return TensorSpan(
        fact=TensorFact(name=name, dtype=dtype, shape=tuple(shape), size_bytes=size_bytes),
        start=data_start + offsets[0],
        end=data_start + offsets[1],
    )


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**63 for value in values
    )


def _nonsense(reason: str) -> UnsafeFormat:
    return UnsafeFormat(
        f"not a safetensors file: {reason}",
        hint="The publisher's file is malformed, or is another format under this name.",
    )
