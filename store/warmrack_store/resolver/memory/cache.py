"""What the cache of one sequence holds, by layer."""

from collections.abc import Iterable
from math import ceil

from warmrack_store.resolver.declared import Declared
from warmrack_store.skeleton import CachedLayer, Skeleton

_SLIDING = frozenset({"sliding_attention", "hybrid_sliding", "reference_sliding_attention"})
_CHUNKED = "chunked_attention"
_LINEAR = frozenset({"linear_attention", "mamba", "recurrent"})
_CONVOLVING = "conv"
_WITHOUT_STATE = frozenset({"moe", "mlp", "dummy"})
_ALL_LAYERS_SLIDE = frozenset({"mistral", "mixtral", "phi3", "starcoder2"})
"""Model types that slide on every layer; others mix, and without `layer_types` count as full."""
_MOST_LAYERS = 2**16
"""A config that declares more is nonsense; the list of its layers would fill the memory."""


def count_cached(declared: Declared, skeleton: Skeleton | None) -> tuple[CachedLayer, ...]:
    """The layers' caches: as a built model showed them, else by the config."""
    if skeleton is not None and skeleton.cached is not None:
        return skeleton.cached
    text = declared.text()
    per_token = _elements_per_token(text)
    layers = [_layer(text, kind, per_token) for kind in _list_kinds(text)]
    if declared.is_true("is_encoder_decoder") or text.is_true("is_encoder_decoder"):
        layers *= 2  # its own cache, and that of the encoder's output
    return tuple(layers)


def measure_cache(
    layers: Iterable[CachedLayer], context_tokens: int, element_bytes: int, batch: int
) -> int:
    """Bytes for `batch` sequences of that many tokens."""
    total = 0
    for layer in layers:
        window = layer.window_tokens
        tokens = context_tokens if window is None else min(window, context_tokens)
        elements = layer.elements_per_token * tokens + layer.fixed_elements
        total += layer.count * (elements * element_bytes + layer.fixed_fp32_elements * 4)
    return total * batch


def _elements_per_token(text: Declared) -> int:
    """Keys and values of one layer: twice the KV heads by the head size.

    Latent attention (MLA) keeps one compressed vector and the rotary part of the keys instead,
    whatever the number of heads (transformers 5.23).
    """
    if latent := text.find_number("kv_lora_rank"):
        return latent + (text.find_number("qk_rope_head_dim") or 0)
    heads = text.find_number(
        "decoder_attention_heads", "num_attention_heads", "n_head", "num_heads"
    )
    kv_heads = text.find_number("num_key_value_heads", "num_kv_heads", "n_head_kv") or heads
    if text.is_true("multi_query") and not text.is_true("new_decoder_architecture"):
        kv_heads = 1
    hidden = text.find_number("hidden_size", "d_model", "n_embd")
    head_dim = text.find_number("head_dim", "d_kv")
    if head_dim is None and hidden and heads:
        head_dim = ceil(hidden / heads)
    return 2 * (kv_heads or 0) * (head_dim or 0)


def _list_kinds(text: Declared) -> tuple[str, ...]:
    if kinds := text.list_texts("layer_types"):
        return kinds
    layers = text.find_number("num_decoder_layers", "decoder_layers", "num_hidden_layers")
    layers = layers or text.find_number("n_layer", "n_layers", "num_layers") or 0
    slides = text.model_type in _ALL_LAYERS_SLIDE and text.config.get("use_sliding_window", True)
    return ("sliding_attention" if slides else "full_attention",) * min(layers, _MOST_LAYERS)


def _layer(text: Declared, kind: str, per_token: int) -> CachedLayer:
    if kind in _SLIDING or kind == _CHUNKED:
        key = "attention_chunk_size" if kind == _CHUNKED else "sliding_window"
        window = text.find_number(key)
        return CachedLayer(elements_per_token=per_token, window_tokens=window, count=1)
    if kind in _LINEAR:
        return _linear_state(text)
    if kind == _CONVOLVING:
        kept = text.find_number("hidden_size") or 0
        kernel = text.find_number("conv_L_cache") or 0
        return CachedLayer(elements_per_token=0, fixed_elements=kept * kernel, count=1)
    return CachedLayer(elements_per_token=0 if kind in _WITHOUT_STATE else per_token, count=1)


def _linear_state(text: Declared) -> CachedLayer:
    """A gated delta net's convolved inputs, and its state matrix a head; 0 where nothing says."""
    key_heads = text.find_number("linear_num_key_heads") or 0
    value_heads = text.find_number("linear_num_value_heads") or 0
    key_dim = text.find_number("linear_key_head_dim") or 0
    value_dim = text.find_number("linear_value_head_dim") or 0
    kernel = text.find_number("linear_conv_kernel_dim") or 0
    return CachedLayer(
        elements_per_token=0,
        fixed_elements=(2 * key_heads * key_dim + value_heads * value_dim) * kernel,
        fixed_fp32_elements=value_heads * key_dim * value_dim,
        count=1,
    )
