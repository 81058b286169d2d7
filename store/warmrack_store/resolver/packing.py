"""How many parameters of the original model the tensors of a checkpoint stand for."""

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from warmrack_store.facts import TensorFact, WeightFile
from warmrack_store.resolver.declared import Declared

_VALUES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8"})
"""Dtypes of which one element is one parameter."""
_COMPANIONS = (
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
    ".SCB",
    ".weight_format",
    ".scales",
    ".biases",
    ".zeros",
    ".qzeros",
    ".g_idx",
    ".inv_freq",
    "_scale",
    "_scale_2",
    "_scale_inv",
    "_scales",
    "_zero_point",
    "_shape",
    "_g_idx",
)
"""Endings of what a quantizer stores beside a weight, and of a buffer that is not trained."""
_HEADS = frozenset({"lm_head", "embed_out"})
_USUAL_BITS = 4


def count_body(config: Mapping[str, object], weights: Iterable[WeightFile]) -> int:
    """Parameters without the output head, which a checkpoint may leave out where it is tied.

    Packed tensors count as what they unpack to: bitsandbytes 4-bit, GPTQ, AWQ, compressed-tensors,
    MXFP4, NVFP4 and MLX; scales and the like do not count.
    """
    tensors = [tensor for file in weights for tensor in file.tensors]
    body = (tensor for tensor in tensors if _HEADS.isdisjoint(tensor.name.split(".")))
    return count_packed(config, tensors, tuple(body))


def count_packed(
    config: Mapping[str, object],
    tensors: Sequence[TensorFact],
    counted: Sequence[TensorFact] | None = None,
) -> int:
    """Parameters that these tensors of a checkpoint stand for; of `counted` alone where given."""
    names = frozenset(tensor.name for tensor in tensors)
    states = frozenset(
        name.partition(".quant_state.")[0] for name in names if ".quant_state." in name
    )
    bits = _find_bits(Declared(config))
    return sum(
        prod(tensor.shape) * _parameters_an_element(tensor, names, states, bits)
        for tensor in (tensors if counted is None else counted)
        if not _is_beside(tensor)
    )


def _is_beside(tensor: TensorFact) -> bool:
    mask = (
        len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1) and tensor.shape[2] == tensor.shape[3]
    )
    return mask or ".quant_state." in tensor.name or tensor.name.endswith(_COMPANIONS)


def _parameters_an_element(
    tensor: TensorFact, names: frozenset[str], states: frozenset[str], bits: int
) -> int:
    """How many parameters one stored element holds; 0 for indices and masks."""
    name, dtype = tensor.name, tensor.dtype
    stem = name.rpartition(".")[0]
    if dtype in {"I32", "U32"}:
        packed = name.endswith((".qweight", "_packed")) or f"{stem}.scales" in names
        return 32 // bits if packed else 0
    if dtype == "U8":
        halves = name.endswith(("_blocks", "_packed")) or not names.isdisjoint(
            {f"{name}.absmax", f"{name}_scale"}
        )
        return 2 if halves or name in states else 0
    return 1 if dtype in _VALUES else 0


def _find_bits(declared: Declared) -> int:
    """Bits of a packed integer weight, wherever the config declares them."""
    for key in ("quantization_config", "compression_config", "quantization"):
        part = declared.find_part(key)
        if part is None:
            continue
        groups = part.find_part("config_groups")
        found = [part.find_number("bits", "num_bits")]
        for group in groups.config if groups else ():
            weights = groups.find_part(group) if groups else None
            weights = weights.find_part("weights") if weights else None
            found.append(weights.find_number("num_bits") if weights else None)
        bits = next((one for one in found if one), None)
        if bits in {1, 2, 4, 8, 16}:
            return bits
    return _USUAL_BITS
