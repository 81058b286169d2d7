"""Where a checkpoint may declare that it is quantized, and what it declares there."""

from collections.abc import Mapping
from dataclasses import dataclass

from warmrack_store.errors import NotSupported
from warmrack_store.facts import RepositoryFacts
from warmrack_store.resolution import Quantization, QuantizationSource
from warmrack_store.resolver.declared import Declared

_KEYS = ("quantization_config", "compression_config", "quantization")
"""transformers; its older name for compressed-tensors; MLX."""
_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
"""ModelOpt; AutoGPTQ; AutoAWQ."""
_FLOATS_BELOW_16_BITS = ("F8_", "F6_", "F4", "E4M3", "E5M2")
_BITSANDBYTES = "bitsandbytes"
PACKED_STATE = ".quant_state.bitsandbytes__"
"""Between a 4-bit weight's name and its type in the name of its packed state."""
_STATES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format")
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """That a checkpoint is quantized, where it says so, and how."""

    place: str
    method: str
    """The library's or the format's name with its bits, as the publisher writes it."""
    part: Declared | None = None
    """The declaration itself, where it is one that transformers reads."""

    def __str__(self) -> str:
        return f"{self.place}: {self.method}"


def find_quantization(
    facts: RepositoryFacts, stored_dtypes: Mapping[str, int]
) -> Declaration | None:
    """The first declaration; None for a plain checkpoint."""
    declared = Declared(facts.config or {})
    parts = [("config.json", declared)]
    if (text := declared.text()) is not declared:
        parts.append(("config.json's text part", text))
    for place, part in parts:
        for key in _KEYS:
            if part.config.get(key):
                found = part.find_part(key)
                read = found if key == _KEYS[0] and part is declared else None
                return Declaration(place=f"{key} in {place}", method=_find_method(found), part=read)
    for path in _FILES:
        if facts.find_file(path) is not None:
            return Declaration(place=path, method="not named")
    small = sorted(dtype for dtype in stored_dtypes if dtype.startswith(_FLOATS_BELOW_16_BITS))
    if small:
        return Declaration(place="safetensors headers", method=", ".join(small))
    return None


def is_quantization_state(name: str) -> bool:
    """Whether a checkpoint's tensor is what bitsandbytes stores beside a weight."""
    return name.endswith(_STATES) or PACKED_STATE in name


def read_stored(repository: str, declaration: Declaration, main_float: str) -> Quantization:
    """What bitsandbytes stored, to be served as it is. Raises NotSupported for any other kind.

    `main_float` is the dtype of the tensors that are not quantized; int8 layers give it back.
    """
    part = declaration.part
    method = _read_method(part) if part is not None else None
    if part is None or method is None:
        raise NotSupported(
            f"{repository} is quantized already ({declaration})",
            hint="Name the repository of the unquantized weights; of quantized ones this version "
            "serves nf4 and int8 of bitsandbytes, and GGUF.",
        )
    named = (part.find_text("bnb_4bit_compute_dtype") or "float32").removeprefix("torch.")
    return Quantization(
        method=method,
        source=QuantizationSource.STORED,
        compute_dtype=main_float if method == "int8" else _DTYPES.get(named, named),
        skipped=part.list_texts("llm_int8_skip_modules"),
    )


def _read_method(part: Declared) -> str | None:
    """nf4 or int8; None for what bitsandbytes does besides (fp4, int8 with fp16 weights)."""
    if part.find_text("quant_method") not in (None, _BITSANDBYTES):
        return None
    if part.is_true("load_in_8bit") or part.is_true("_load_in_8bit"):
        return None if part.is_true("llm_int8_has_fp16_weight") else "int8"
    in_4bit = part.is_true("load_in_4bit") or part.is_true("_load_in_4bit")
    # Without a type the library takes fp4; it reads anything but uint8 storage as other tensors.
    plain = part.find_text("bnb_4bit_quant_storage") in (None, "uint8", "torch.uint8")
    return "nf4" if in_4bit and plain and part.find_text("bnb_4bit_quant_type") == "nf4" else None


def _find_method(declaration: Declared | None) -> str:
    if declaration is None:
        return "not named"
    method = declaration.find_text("quant_method", "quant_algo", "format")
    bits = declaration.find_number("bits")
    kind = declaration.find_text("bnb_4bit_quant_type") if method == _BITSANDBYTES else None
    if method is None and bits is None:
        return "not named"
    return " ".join(part for part in (method, f"{bits} bits" if bits else None, kind) if part)
