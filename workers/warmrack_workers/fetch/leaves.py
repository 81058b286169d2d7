"""The leaves of a safetensors file: one digest for each tensor, taken from the verified bytes."""

import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from warmrack_store.cache.safetensors_header import (
    PREFIX_BYTES,
    TensorSpan,
    header_size,
    parse_spans,
)
from warmrack_store.errors import Cancelled
from warmrack_store.tensors import TensorLeaf, leaf_digest

_THREADS = 2
"""BLAKE3 leaves the interpreter's lock while it hashes; two threads outrun any disk."""


def hash_leaves(location: Path, halt: Event | None = None) -> tuple[TensorLeaf, ...]:
    """One leaf for each tensor, in the order of their bytes; UnsafeFormat where the file is no
    well-formed safetensors file, Cancelled where `halt` is set meanwhile."""
    with _mapped(location) as view:
        end = header_size(bytes(view[:PREFIX_BYTES]), len(view))
        spans = parse_spans(bytes(view[:end]), len(view))
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="leaves") as pool:
            return tuple(pool.map(lambda span: _hash_span(view, span, halt), spans))


def _hash_span(view: memoryview, span: TensorSpan, halt: Event | None) -> TensorLeaf:
    if halt is not None and halt.is_set():
        raise Cancelled(f"stopped before tensor {span.fact.name} was hashed")
    fact = span.fact
    with view[span.start : span.end] as data:
        leaf = leaf_digest(fact.dtype, fact.shape, data)
    return TensorLeaf(name=fact.name, dtype=fact.dtype, shape=fact.shape, leaf=leaf)


@contextmanager
def _mapped(location: Path) -> Iterator[memoryview]:
    with location.open("rb") as stream:
        if not stream.read(1):
            yield memoryview(b"")  # an empty file cannot be mapped
            return
        with (
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            yield view
