"""Which tensors of a checkpoint become linear layers that bitsandbytes replaces.

It replaces modules of the exact class `nn.Linear` (and GPT-2's `Conv1D`), except the output head,
tied layers and the model's last parameter where that is a weight (transformers 5.23,
`get_keys_to_not_convert`). Embeddings, routers and fused experts are other classes.
"""

import re
from enum import StrEnum

from warmrack_store.facts import TensorFact
from warmrack_store.resolver.declared import Declared

_MATRIX = 2
_HEADS = ("lm_head", "embed_out", "output_layer", "predictions.decoder", "lm_head.decoder")
_TABLES = (
    *("embed_tokens", "wte", "wpe", "word_embeddings", "position_embeddings", "embed_in"),
    *("token_type_embeddings", "tok_embeddings", "embed_positions", "relative_attention_bias"),
    *("shared", "embed_tokens_per_layer", "pos_embed", "position_embedding"),
)
_EXPERTS = re.compile(r"(?:^|\.)experts(?:\.|$)")
_ROUTERS = re.compile(r"\.(?:mlp|block_sparse_moe|moe|feed_forward|ffn)\.(?:gate|router)$")
_LAST_WITHOUT_BIAS = ("score",)
"""The head of a `ForSequenceClassification` on a decoder: the last parameter, a bare weight."""
_TRANSPOSING = frozenset({"gpt2", "openai-gpt"})
"""Their layers are `Conv1D`, stored with the input side first."""
_KEPT_IN_FP32 = {"t5": ("wo",), "mt5": ("wo",), "umt5": ("wo",)}
"""Modules that the class itself keeps, by model type; they are not replaced either."""

_KNOWN = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2"}
    | {"gemma3", "gemma3_text", "phi", "phi3", "deepseek_v2", "deepseek_v3", "gpt2", "gpt_neox"}
    | {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "olmo", "olmo2", "smollm3"}
    | {"granite", "starcoder2", "stablelm", "cohere", "opt", "t5", "mpnet", "qwen2_vl"}
)
"""Model types whose names this rule was held against."""


class Kind(StrEnum):
    LINEAR = "linear"
    TRANSPOSED = "transposed"
    """A linear layer stored with the input side first."""
    OTHER = "other"


def is_known(declared: Declared) -> bool:
    """False: the rule goes by the names alone and may be wrong."""
    return declared.text().model_type in _KNOWN


def classify(tensor: TensorFact, declared: Declared, skipped: tuple[str, ...]) -> Kind:
    """What the tensor becomes in a load that quantizes. `skipped` are modules or suffixes."""
    module = tensor.name.removesuffix(".weight")
    if len(tensor.shape) != _MATRIX or module == tensor.name:
        return Kind.OTHER
    model_type = declared.text().model_type or ""
    kept = (*_HEADS, *_TABLES, *_LAST_WITHOUT_BIAS, *_KEPT_IN_FP32.get(model_type, ()))
    if _ends(module, kept) or any(_skips(pattern, module) for pattern in skipped):
        return Kind.OTHER
    if _EXPERTS.search(module) or _ROUTERS.search(module):
        return Kind.OTHER
    return Kind.TRANSPOSED if model_type in _TRANSPOSING else Kind.LINEAR


def _ends(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _skips(pattern: str, module: str) -> bool:
    """As transformers reads a skip list: a prefix up to a dot, or any suffix."""
    return module == pattern or module.startswith(f"{pattern}.") or module.endswith(pattern)
