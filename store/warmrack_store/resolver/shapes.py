"""The sizes of a model as its config declares them, under one name each."""

from warmrack_store.resolver.declared import Declared

_SIZES: dict[str, tuple[str, ...]] = {
    "hidden size": ("hidden_size", "d_model", "n_embd"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "decoder_attention_heads"),
    "intermediate size": ("intermediate_size", "d_ff", "n_inner", "ffn_dim", "decoder_ffn_dim"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "expert size": ("moe_intermediate_size",),
    "encoder layers": ("encoder_layers",),
}
_PARTS = {"vision": "vision_config", "audio": "audio_config"}
_PART_SIZES = {
    "hidden size": ("hidden_size", "d_model", "embed_dim"),
    "layers": ("num_hidden_layers", "depth", "encoder_layers"),
}
_OTHER_SPELLINGS = {"su": "longrope", "mrope": "default"}
"""Older names of the kinds of rotary encoding."""


def list_sizes(declared: Declared) -> dict[str, int | None]:
    """Every size by its name; None for one that the config does not have.

    KV heads and head size have the values that transformers gives where a config leaves them out.
    """
    text = declared.text()
    sizes = {name: text.find_number(*keys) for name, keys in _SIZES.items()}
    heads, hidden = sizes["heads"], sizes["hidden size"]
    sizes["KV heads"] = (
        text.find_number("num_key_value_heads", "num_kv_heads", "n_head_kv") or heads
    )
    width = hidden // heads if hidden and heads else None
    sizes["head size"] = text.find_number("head_dim", "d_kv") or width
    for part, key in _PARTS.items():
        found = declared.find_part(key)
        for name, keys in _PART_SIZES.items():
            sizes[f"{part} {name}"] = found.find_number(*keys) if found else None
    return sizes


def read_positions(declared: Declared) -> str | None:
    """The rotary encoding's kind and base, in one spelling; None where they cannot be compared.

    transformers 5 writes `rope_parameters`, earlier ones `rope_theta` and `rope_scaling`. Models
    that encode each kind of layer in its own way have no single answer.
    """
    text = declared.text()
    part = text.find_part("rope_parameters") or text.find_part("rope_scaling") or Declared({})
    theta = text.config.get("rope_theta", part.config.get("rope_theta"))
    if isinstance(theta, bool) or not isinstance(theta, int | float):
        return None
    if any(isinstance(value, dict) for value in part.config.values()):
        return None
    kind = part.find_text("rope_type", "type") or "default"
    kind = _OTHER_SPELLINGS.get(kind, kind)
    return f"{kind} rotary encoding with base {float(theta):.12g}"
