"""Bytes of parameters after a load: plain, cast or quantized."""

from dataclasses import dataclass
from math import ceil

from warmrack_store.resolution import Quantization, QuantizationSource
from warmrack_store.resolver.memory.parameters import Parameters
from warmrack_store.skeleton import LinearShape

DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8}
_NF4_BLOCK = 64
_NF4_OUTER_BLOCK = 256
_NF4_TABLES_BYTES = 256 * 4 + 16 * 4 + 4
"""Of each layer: the outer code table, nf4's own table and the offset, all fp32."""
_FP8_BLOCK = 128
_LOAD_BYTES_PER_ELEMENT = {"nf4": 14, "int8": 9}
"""Beside a layer while it is quantized: measured 13.3 and 8.5 at most on CPU, with an allocator
that gives everything back at once; both make fp32 copies. A usual one keeps some of what is freed.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    weights_bytes: int
    state_bytes: int
    load_bytes: int
    """Beside these while they are loaded."""


def measure_weights(
    parameters: Parameters, quantization: Quantization | None, cast: str | None
) -> Held:
    """A mapped load of stored dtypes needs nothing beside itself; a shard is never copied whole."""
    on_the_fly = quantization is not None and quantization.source is QuantizationSource.ON_THE_FLY
    dtype = cast or (quantization.compute_dtype if quantization and on_the_fly else None)
    floats, element_bytes = parameters.float_bytes, DTYPE_BYTES.get(dtype or "")
    if element_bytes is not None:
        wider = parameters.fp32_elements * max(0, 4 - element_bytes)
        floats = parameters.float_elements * element_bytes + wider
    packed = state = load = 0
    for shape in parameters.linears:
        layer_packed, layer_state = _measure_linear(shape, quantization)
        packed, state = packed + layer_packed * shape.count, state + layer_state * shape.count
        load = max(load, shape.elements)
    per_element = _LOAD_BYTES_PER_ELEMENT.get(quantization.method, 4) if quantization else 0
    return Held(
        weights_bytes=floats + parameters.fixed_bytes + packed,
        state_bytes=parameters.state_bytes + state,
        load_bytes=load * per_element + _measure_fusing(parameters, dtype),
    )


def _measure_linear(shape: LinearShape, quantization: Quantization | None) -> tuple[int, int]:
    """(packed weights, state) of one layer, in bytes.

    nf4 with double quantization: 4 bits an element, 8 bits a block of 64, fp32 a block of 256
    blocks, and tables; int8: a byte an element and fp32 a row. bitsandbytes 0.50.2 on CPU holds
    the same after a forward pass.
    """
    elements, method = shape.elements, quantization.method if quantization else ""
    if method == "nf4":
        blocks = ceil(elements / _NF4_BLOCK)
        outer_bytes = 4 * ceil(blocks / _NF4_OUTER_BLOCK)
        return ceil(elements / 2), blocks + outer_bytes + _NF4_TABLES_BYTES
    if method == "int8":
        return elements, 4 * shape.out_features
    if method == "fp8":
        rows, columns = ceil(shape.out_features / _FP8_BLOCK), ceil(shape.in_features / _FP8_BLOCK)
        return elements, 4 * rows * columns
    return 2 * elements, 0


def _measure_fusing(parameters: Parameters, dtype: str | None) -> int:
    """Experts that are stored apart are cast before they are put together, all of them at once:
    measured 0.72 of their cast size beside the result, taken as 1."""
    return parameters.fused_elements * DTYPE_BYTES[dtype] if dtype in DTYPE_BYTES else 0
