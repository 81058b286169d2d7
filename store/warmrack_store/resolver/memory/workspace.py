"""Bytes that a forward pass needs beside weights and cache."""

from collections.abc import Iterable

from warmrack_store.facts import WeightFile
from warmrack_store.resolution import Quantization, QuantizationSource
from warmrack_store.resolver.declared import GENERATING, Declared
from warmrack_store.resolver.memory.weights import DTYPE_BYTES

_ELEMENT_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
_PREFILL_TOKENS = 512
"""Long prompts are prefilled in chunks; no more tokens than this are in flight at once."""
_FIXED_BYTES = 32 * 2**20
"""Allocator slack, the kernels' scratch buffers and rotary tables, whatever the model."""


def find_element_bytes(
    files: Iterable[WeightFile], quantization: Quantization | None, cast: str | None
) -> int:
    """Bytes of an element that is computed: as cast, as a quantizing load names it, else as most
    of the stored floats are."""
    if cast in DTYPE_BYTES:
        return DTYPE_BYTES[cast]
    if quantization is not None and quantization.source is QuantizationSource.ON_THE_FLY:
        return DTYPE_BYTES.get(quantization.compute_dtype, 2)
    sizes: dict[int, int] = {}
    for file in files:
        for tensor in file.tensors:
            if (size := _ELEMENT_BYTES.get(tensor.dtype)) is not None:
                sizes[size] = sizes.get(size, 0) + tensor.size_bytes
    return max(sizes, key=lambda size: (sizes[size], size), default=4)


def measure_workspace(
    declared: Declared, context_tokens: int, element_bytes: int, batch: int
) -> int:
    """Activations alive at once in one layer of a prefill chunk, and the chunk's logits in fp32.

    Six of the hidden size (residual, normed, query, key, value, output) and three of the
    intermediate size (gate, up, product); logits of every position, since scoring keeps them.
    A batch is prefilled one sequence after another; each adds a token of decoding.
    """
    text = declared.text()
    tokens = min(context_tokens, _PREFILL_TOKENS) + batch - 1
    hidden = text.find_number("hidden_size", "d_model", "n_embd") or 0
    intermediate = text.find_number("intermediate_size", "d_ff", "n_inner") or 4 * hidden
    has_logits = (declared.architecture or "").endswith((*GENERATING, "ForMaskedLM"))
    vocabulary = (text.find_number("vocab_size") or 0) if has_logits else 0
    activations = (6 * hidden + 3 * intermediate) * element_bytes
    return _FIXED_BYTES + tokens * (activations + 4 * vocabulary)
