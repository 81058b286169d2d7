"""Headers as safetensors writes them, and headers that nobody should."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from warmrack_store.cache.safetensors_header import header_size, parse_header, parse_spans
from warmrack_store.errors import UnsafeFormat

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def make_file(header: Any, data_bytes: int = 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\x00" * data_bytes


def parse(body: bytes) -> dict[str, Any]:
    return {fact.name: fact for fact in parse_header(body, len(body))}


def test_what_safetensors_writes_is_read_with_every_place() -> None:
    arrays: dict[str, NDArray[Any]] = {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "empty": np.zeros((0, 4), dtype=np.float16),
        "scalar": np.array(7, dtype=np.int64),
    }
    body = save(arrays, metadata={"format": "pt"})
    for span in parse_spans(body, len(body)):
        array = arrays[span.fact.name]
        assert body[span.start : span.end] == array.tobytes()
        assert (span.fact.shape, span.fact.size_bytes) == (array.shape, array.nbytes)


def test_the_first_eight_bytes_tell_how_much_to_read() -> None:
    body = make_file(GOOD)
    size = header_size(body[:8], len(body))
    assert parse_header(body[:size], len(body)) == parse_header(body, len(body))
    with pytest.raises(UnsafeFormat, match="were read"):
        parse_header(body[: size - 1], len(body))


def test_padding_and_metadata_are_allowed() -> None:
    text = json.dumps({"__metadata__": {"format": "pt"}, **GOOD}).encode() + b"   "
    assert list(parse(make_file(text))) == ["a"]


def test_half_byte_elements_are_counted_in_bits() -> None:
    assert parse(make_file({"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}))


def span(dtype: str, shape: list[Any], start: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}',
        b" " + json.dumps(GOOD).encode(),
        b'{"a":' + b"[" * 200_000,
        b"\xff\xfe{}",
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": "F32"},
        {"a": span("F33", [2], 0, 8)},
        {"a": span("F32", [3], 0, 8)},
        {"a": span("F32", [-2], 0, 8)},
        {"a": span("F32", [True, 2], 0, 8)},
        {"a": span("F32", [2.0], 0, 8)},
        {"a": span("F32", [2], 8, 0)},
        {"a": span("F32", [1], 4, 8)},
        {"a": span("F32", [1], 0, 4)},
        {"a": span("F32", [2], 0, 8), "b": span("F32", [1], 4, 8)},
        {"a": span("F32", [4], 0, 16)},
        {"a": span("F32", [1] * 100 + [2], 0, 8)},
        {"__metadata__": {"x": 1}, **GOOD},
        {"__metadata__": [], **GOOD},
        {},
    ],
    ids=lambda header: str(header)[:50],
)
def test_a_header_that_makes_no_sense_is_refused(header: Any) -> None:
    with pytest.raises(UnsafeFormat):
        parse(make_file(header))


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"", "shorter"), (b"\xff" * 100, "allowed"), ((500).to_bytes(8, "little"), "ends after")],
)
def test_a_file_that_is_no_safetensors_file_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(UnsafeFormat, match=said):
        parse_header(body, len(body))


def test_a_large_header_is_refused_before_it_is_read() -> None:
    with pytest.raises(UnsafeFormat, match="allowed"):
        header_size((25_000_001).to_bytes(8, "little"), 10**12)


def test_what_safetensors_itself_refuses_is_refused(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    body = make_file({"a": span("F32", [1], 0, 4)})
    (tmp_path / "x").write_bytes(body)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.safe_open(tmp_path / "x", "np")
    with pytest.raises(UnsafeFormat):
        parse(body)
