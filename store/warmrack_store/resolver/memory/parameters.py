"""The parameters that a load brings into memory, and which of them bitsandbytes would replace."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from warmrack_store.facts import TensorFact, WeightFile
from warmrack_store.resolution import Quantization, QuantizationSource
from warmrack_store.resolver.declared import Declared
from warmrack_store.resolver.memory.linears import Kind, classify, is_known
from warmrack_store.skeleton import LinearShape, Skeleton

_LAYER = re.compile(r"^(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\.")
_DROPPED = (".rotary_emb.inv_freq", ".attn.masked_bias", ".attention.masked_bias")
_CAUSAL_MASK_DIMENSIONS = 4
_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "shared")
_STATE_ENDINGS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB")
_DISCARDED_ENDINGS = (".weight_format",)
_FLOATS = frozenset({"F64", "F32", "BF16", "F16"})
_PACKED_STATE = ".quant_state.bitsandbytes__"
_OFFSET_BYTES = 4
"""The mean of the block scales; a checkpoint has it inside the packed state."""
_ALWAYS_FP32 = ".e_score_correction_bias"
"""Routers' biases, which the classes keep in fp32 however they are stored."""
_TIED_BY_DEFAULT = frozenset(
    {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "modernbert", "gpt2", "t5"}
    | {"gemma", "gemma2", "gemma3", "gemma3_text", "opt", "bloom", "falcon", "mpt"}
)
"""Model types whose config class ties where config.json says nothing (transformers 5.23)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Linear layers that may be quantized apart from all the rest."""

    linears: tuple[LinearShape, ...] = ()
    """Only those that are quantized at the load."""
    float_bytes: int
    """Stored bytes of the float tensors that stay as they are."""
    float_elements: int
    fp32_elements: int = 0
    """Among the float elements: those that no load narrows."""
    fixed_bytes: int
    """Integer tensors and weights that are stored quantized."""
    state_bytes: int = 0
    """Quantization state that the checkpoint brings."""
    fused_elements: int = 0
    """Expert weights that are stored one by one and lie in memory as one tensor a layer."""
    notes: tuple[str, ...] = ()


def count_parameters(
    declared: Declared,
    files: Iterable[WeightFile],
    quantization: Quantization | None,
    skeleton: Skeleton | None,
) -> Parameters:
    """What lies in memory after the load; tensors that the class does not take are left out."""
    tensors = [tensor for file in files for tensor in file.tensors]
    kept = _drop_unused(declared, tensors)
    on_the_fly = quantization is not None and quantization.source is QuantizationSource.ON_THE_FLY
    if quantization is None or not on_the_fly:
        return _sum(kept, {})
    if skeleton is not None:
        return _from_skeleton(skeleton, kept)
    kinds = {tensor.name: classify(tensor, declared, quantization.skipped) for tensor in kept}
    notes = () if is_known(declared) else (_unsure(declared),)
    return _sum(kept, kinds, notes)


def _unsure(declared: Declared) -> str:
    return (
        f"which layers of a {declared.model_type or 'model without a type'} are quantized is "
        "guessed from the tensors' names"
    )


def _drop_unused(declared: Declared, tensors: Iterable[TensorFact]) -> list[TensorFact]:
    """Without layers for speculation, old buffers and the second copy of a tied head."""
    layers = declared.text().find_number("num_hidden_layers", "n_layer", "n_layers")
    kept = [tensor for tensor in tensors if not _is_unused(tensor, layers)]
    if not _ties(declared):
        return kept
    tables = {tensor.shape for tensor in kept if _is_embedding(tensor.name)}
    return [one for one in kept if not (_is_head(one.name) and one.shape in tables)]


def _is_unused(tensor: TensorFact, layers: int | None) -> bool:
    if tensor.name.endswith(_DROPPED):
        return True
    if tensor.name.endswith(".attn.bias") and len(tensor.shape) == _CAUSAL_MASK_DIMENSIONS:
        return True
    match = _LAYER.match(tensor.name)
    return match is not None and layers is not None and int(match[1]) >= layers


def _ties(declared: Declared) -> bool:
    for part in (declared, declared.text()):
        stated = part.config.get("tie_word_embeddings")
        if isinstance(stated, bool):
            return stated
    return declared.text().model_type in _TIED_BY_DEFAULT


def _is_embedding(name: str) -> bool:
    return name.endswith(tuple(f"{part}.weight" for part in _EMBEDDINGS))


def _is_head(name: str) -> bool:
    return name.removesuffix(".weight").endswith(("lm_head", "predictions.decoder", "embed_out"))


def _sum(
    tensors: Iterable[TensorFact], kinds: dict[str, Kind], notes: tuple[str, ...] = ()
) -> Parameters:
    linears: list[LinearShape] = []
    float_bytes = float_elements = fp32_elements = fixed_bytes = state_bytes = fused = 0
    for tensor in tensors:
        elements, kind = prod(tensor.shape), kinds.get(tensor.name, Kind.OTHER)
        fused += elements if ".experts." in tensor.name else 0
        if _PACKED_STATE in tensor.name:
            state_bytes += _OFFSET_BYTES
        elif tensor.name.endswith(_STATE_ENDINGS):
            state_bytes += tensor.size_bytes
        elif kind in (Kind.LINEAR, Kind.TRANSPOSED) and len(tensor.shape) == 2:
            linears.append(_shape(tensor.shape, transposed=kind is Kind.TRANSPOSED))
        elif tensor.dtype in _FLOATS:
            kept_in_fp32 = elements if tensor.name.endswith(_ALWAYS_FP32) else 0
            float_bytes += max(tensor.size_bytes, 4 * kept_in_fp32)
            float_elements, fp32_elements = float_elements + elements, fp32_elements + kept_in_fp32
        elif not tensor.name.endswith(_DISCARDED_ENDINGS):
            fixed_bytes += tensor.size_bytes
    return Parameters(
        linears=tuple(linears),
        float_bytes=float_bytes,
        float_elements=float_elements,
        fp32_elements=fp32_elements,
        fixed_bytes=fixed_bytes,
        state_bytes=state_bytes,
        fused_elements=fused,
        notes=notes,
    )


def _shape(shape: tuple[int, ...], *, transposed: bool) -> LinearShape:
    out_features, in_features = reversed(shape) if transposed else shape
    return LinearShape(
        in_features=in_features, out_features=out_features, count=1, quantizable=True
    )


def _from_skeleton(skeleton: Skeleton, tensors: Iterable[TensorFact]) -> Parameters:
    """The float bytes are those of a plain 16-bit load; a quantizing load names its own dtype."""
    left = sum(one.elements * one.count for one in skeleton.linears if not one.quantizable)
    elements = skeleton.other_elements + left
    return Parameters(
        linears=tuple(one for one in skeleton.linears if one.quantizable),
        float_bytes=elements * 2,
        float_elements=elements,
        fp32_elements=skeleton.fp32_elements,
        fixed_bytes=skeleton.persistent_buffer_bytes,
        fused_elements=sum(prod(one.shape) for one in tensors if ".experts." in one.name),
    )
