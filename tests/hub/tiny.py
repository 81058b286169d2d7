"""Tiny models with random weights, the same bytes on every build."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.hub.tokenizer import VOCABULARY_SIZE, bert_tokenizer, chat_tokenizer

# Wide weights: a tensor that was cast, quantized or swapped then changes the answer visibly.
_INITIALIZER_RANGE = 0.5
# The weights of `tiny_llama` are 790 kB, so this makes three files.
_SHARD_SIZE = "300KB"
_SIZES = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": _INITIALIZER_RANGE,
}


def tiny_llama(folder: Path) -> None:
    _save_chat_model(folder, LlamaConfig, LlamaForCausalLM)


def tiny_llama_sharded(folder: Path) -> None:
    """The weights of `tiny_llama` in several files with an index."""
    _save_chat_model(folder, LlamaConfig, LlamaForCausalLM, max_shard_size=_SHARD_SIZE)


def tiny_qwen(folder: Path) -> None:
    _save_chat_model(folder, Qwen3Config, Qwen3ForCausalLM, seed=1)


def tiny_gemma(folder: Path) -> None:
    """Has tied embeddings and soft-capped logits."""
    sizes = {"query_pre_attn_scalar": 16, "sliding_window": 128, "tie_word_embeddings": True}
    _save_chat_model(folder, Gemma2Config, Gemma2ForCausalLM, seed=2, sizes=sizes)


def tiny_moe(folder: Path) -> None:
    sizes = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2}
    _save_chat_model(folder, MixtralConfig, MixtralForCausalLM, seed=3, sizes=sizes)


def tiny_bert(folder: Path) -> None:
    tokenizer = bert_tokenizer()
    config = BertConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=_INITIALIZER_RANGE,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(4)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pickle_only(folder: Path) -> None:
    """A repository that has its weights as a pickle and in no other form."""
    tiny_llama(folder)
    (folder / "model.safetensors").unlink()
    torch.save(
        _make_model(LlamaConfig, LlamaForCausalLM).state_dict(), folder / "pytorch_model.bin"
    )


def _save_chat_model(
    folder: Path,
    config_type: Callable[..., Any],
    model_type: Callable[[Any], Any],
    *,
    seed: int = 0,
    sizes: dict[str, Any] | None = None,
    max_shard_size: str = "5GB",
) -> None:
    model = _make_model(config_type, model_type, seed=seed, sizes=sizes)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    chat_tokenizer().save_pretrained(folder)


def _make_model(
    config_type: Callable[..., Any],
    model_type: Callable[[Any], Any],
    *,
    seed: int = 0,
    sizes: dict[str, Any] | None = None,
) -> Any:
    tokenizer = chat_tokenizer()
    config = config_type(
        **{**_SIZES, "tie_word_embeddings": False, **(sizes or {})},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return model_type(config)
