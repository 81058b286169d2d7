"""Bytes a loaded model takes, computed from headers and config before anything moves."""

from collections.abc import Iterable, Mapping
from math import ceil

from warmrack_store.durations import format_size
from warmrack_store.errors import WontFit
from warmrack_store.facts import WeightFile
from warmrack_store.resolution import Memory
from warmrack_store.resolver.declared import GENERATING, Declared, generates

DEFAULT_CONTEXT_TOKENS = 4096
_ELEMENT_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
_PREFILL_TOKENS = 512
"""Long prompts are prefilled in chunks; no more tokens than this are in flight at once."""
_FIXED_WORKSPACE_BYTES = 32 * 2**20
"""Allocator slack and the kernels' scratch buffers, whatever the model."""
_MOST = 2**60
"""No machine has so much, and sums of it still fit SQL's integers."""
_ALL_LAYERS_SLIDE = frozenset({"mistral", "mixtral", "phi3", "starcoder2"})
"""Model types that slide on every layer; others mix, and without `layer_types` count as full."""
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert"})
"""Their first position is the padding id plus one, so the table holds that many tokens fewer."""
_CACHELESS_LAYERS = frozenset({"linear_attention", "mamba", "conv", "recurrent", "moe", "mlp"})
"""Layers whose state does not grow with the context."""


def estimate_memory(
    config: Mapping[str, object], weights: Iterable[WeightFile], max_seq_length: int | None
) -> Memory:
    """What the model is charged with: weights exactly as stored, one sequence's cache, workspace."""
    declared = Declared(config)
    text = declared.text()
    weights = tuple(weights)
    element_bytes = _compute_element_bytes(weights)
    context = min(max_seq_length or DEFAULT_CONTEXT_TOKENS, find_longest_context(text) or 2**31)
    cached = generates(declared.architecture)
    return Memory(
        weights_bytes=sum(tensor.size_bytes for file in weights for tensor in file.tensors),
        cache_bytes=min(_cache_bytes(declared, context, element_bytes), _MOST) if cached else 0,
        context_tokens=context,
        workspace_bytes=min(_workspace_bytes(declared, context, element_bytes), _MOST),
    )


def find_longest_context(text: Declared) -> int | None:
    """Tokens that the model has positions for; None where the config sets no bound."""
    keys = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")
    longest = text.find_number(*keys)
    if longest is None or text.model_type not in _POSITIONS_AFTER_PADDING:
        return longest
    return max(1, longest - (text.find_number("pad_token_id") or 0) - 1)


def check_fits(memory: Memory, budgets: Mapping[str, int]) -> None:
    """Raise WontFit, with every device's budget, where no device could ever hold the model.

    `budgets` are bytes by device, whatever is in use there now; none at all is for the placement
    to judge.
    """
    if not budgets or memory.total_bytes <= max(budgets.values()):
        return
    shown = ", ".join(f"{name} {format_size(size)}" for name, size in sorted(budgets.items()))
    raise WontFit(f"the model needs {describe_memory(memory)}; the devices may give {shown}")


def describe_memory(memory: Memory) -> str:
    """The total and its parts, for people."""
    return (
        f"{format_size(memory.total_bytes)} (weights {format_size(memory.weights_bytes)}, "
        f"cache {format_size(memory.cache_bytes)} for {memory.context_tokens} tokens, "
        f"workspace {format_size(memory.workspace_bytes)})"
    )


def _compute_element_bytes(weights: Iterable[WeightFile]) -> int:
    """Bytes of an element of the cache: of the float dtype that most of the weights have."""
    sizes: dict[int, int] = {}
    for file in weights:
        for tensor in file.tensors:
            if (size := _ELEMENT_BYTES.get(tensor.dtype)) is not None:
                sizes[size] = sizes.get(size, 0) + tensor.size_bytes
    return max(sizes, key=lambda size: (sizes[size], size), default=4)


def _cache_bytes(declared: Declared, context: int, element_bytes: int) -> int:
    """2 (keys and values) x layers x KV heads x head size x tokens x bytes of an element.

    An encoder-decoder keeps both its own cache and that of the encoder's output.
    """
    text = declared.text()
    width = _kv_width(text)
    tokens = sum(_cached_tokens(text, context))
    sides = 2 if text.is_true("is_encoder_decoder") or declared.is_true("is_encoder_decoder") else 1
    return 2 * width * tokens * element_bytes * sides


def _kv_width(text: Declared) -> int:
    """KV heads x head size of one layer; latent attention (MLA) is counted as it is expanded."""
    heads = text.find_number(
        "decoder_attention_heads", "num_attention_heads", "n_head", "num_heads"
    )
    kv_heads = text.find_number("num_key_value_heads", "num_kv_heads", "n_head_kv") or heads
    if text.is_true("multi_query") and not text.is_true("new_decoder_architecture"):
        kv_heads = 1
    hidden = text.find_number("hidden_size", "d_model", "n_embd")
    head_dim = text.find_number("head_dim", "d_kv")
    if rope := text.find_number("qk_rope_head_dim"):
        head_dim = rope + (text.find_number("qk_nope_head_dim") or 0)
    if head_dim is None and hidden and heads:
        head_dim = ceil(hidden / heads)
    return (kv_heads or 0) * (head_dim or 0)


def _cached_tokens(text: Declared, context: int) -> list[int]:
    """Tokens that each layer caches."""
    layers = text.find_number("num_decoder_layers", "decoder_layers", "num_hidden_layers")
    layers = layers or text.find_number("n_layer", "n_layers", "num_layers") or 0
    window = min(text.find_number("sliding_window") or context, context)
    kinds = text.list_texts("layer_types")
    if kinds:
        sizes = {"sliding_attention": window, **dict.fromkeys(_CACHELESS_LAYERS, 0)}
        return [sizes.get(kind, context) for kind in kinds]
    slides = text.model_type in _ALL_LAYERS_SLIDE and text.config.get("use_sliding_window", True)
    return [(window if slides else context) * layers]


def _workspace_bytes(declared: Declared, context: int, element_bytes: int) -> int:
    """Activations alive at once in one layer of a prefill chunk, and the chunk's logits in fp32.

    Six of the hidden size (residual, normed, query, key, value, output) and three of the
    intermediate size (gate, up, product); logits of every position, since scoring keeps them.
    """
    text = declared.text()
    tokens = min(context, _PREFILL_TOKENS)
    hidden = text.find_number("hidden_size", "d_model", "n_embd") or 0
    intermediate = text.find_number("intermediate_size", "d_ff", "n_inner") or 4 * hidden
    has_logits = (declared.architecture or "").endswith((*GENERATING, "ForMaskedLM"))
    vocabulary = (text.find_number("vocab_size") or 0) if has_logits else 0
    activations = (6 * hidden + 3 * intermediate) * element_bytes
    return _FIXED_WORKSPACE_BYTES + tokens * (activations + 4 * vocabulary)
