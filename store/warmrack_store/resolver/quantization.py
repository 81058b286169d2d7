"""Where a checkpoint may declare that it is quantized, and what it declares there."""

from collections.abc import Mapping

from warmrack_store.facts import RepositoryFacts
from warmrack_store.resolver.declared import Declared

_KEYS = ("quantization_config", "compression_config", "quantization")
"""transformers; its older name for compressed-tensors; MLX."""
_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
"""ModelOpt; AutoGPTQ; AutoAWQ."""
_FLOATS_BELOW_16_BITS = ("F8_", "F6_", "F4", "E4M3", "E5M2")


def find_quantization(facts: RepositoryFacts, stored_dtypes: Mapping[str, int]) -> str | None:
    """The first declaration, as `place: method`; None for a plain checkpoint."""
    declared = Declared(facts.config or {})
    parts = [("config.json", declared)]
    if (text := declared.text()) is not declared:
        parts.append(("config.json's text part", text))
    for place, part in parts:
        for key in _KEYS:
            if part.config.get(key):
                return f"{key} in {place}: {_find_method(part.find_part(key))}"
    for path in _FILES:
        if facts.find_file(path) is not None:
            return f"{path}: not named"
    small = sorted(dtype for dtype in stored_dtypes if dtype.startswith(_FLOATS_BELOW_16_BITS))
    return f"safetensors headers: {', '.join(small)}" if small else None


def _find_method(declaration: Declared | None) -> str:
    if declaration is None:
        return "not named"
    method = declaration.find_text("quant_method", "quant_algo", "format")
    bits = declaration.find_number("bits")
    if method is None and bits is None:
        return "not named"
    return " ".join(part for part in (method, f"{bits} bits" if bits else None) if part)
