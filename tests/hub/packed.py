"""Tiny models as GGUF files, written with ggml's own library."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

from tests.hub.models import get_model_folder
from tests.hub.tokenizer import chat_tokenizer

KINDS = {"Q8_0": gguf.GGMLQuantizationType.Q8_0, "Q4_0": gguf.GGMLQuantizationType.Q4_0}
_ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen3": gguf.MODEL_ARCH.QWEN3}


def tiny_llama_gguf(folder: Path) -> None:
    source = get_model_folder("tiny_llama")
    model = transformers.LlamaForCausalLM.from_pretrained(source, dtype=torch.float32)
    for kind in KINDS:
        _write(model, kind, folder / f"tiny-llama.{kind}.gguf")


def tiny_qwen_gguf(folder: Path) -> None:
    """With heads of 128, since transformers reads no other size from a GGUF file of this kind."""
    config = transformers.AutoConfig.from_pretrained(get_model_folder("tiny_qwen"))
    config.head_dim = 128
    torch.manual_seed(5)
    _write(transformers.Qwen3ForCausalLM(config), "Q8_0", folder / "tiny-qwen-Q8_0.gguf")


def _write(model: Any, kind: str, path: Path) -> None:
    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    _write_sizes(writer, config)
    _write_tokenizer(writer, chat_tokenizer())
    table = gguf.get_tensor_name_map(_ARCHITECTURES[config.model_type], config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        base, _, ending = key.rpartition(".")
        rows = _rotate(key, tensor.numpy(), config)
        packs = rows.ndim == 2
        data = gguf.quants.quantize(rows, KINDS[kind]) if packs else rows
        writer.add_tensor(
            f"{table.get_name(base)}.{ending}", data, raw_dtype=KINDS[kind] if packs else None
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_name("tiny")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    vocabulary = tokenizer.get_vocab()
    added = tokenizer.get_added_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    kinds = [gguf.TokenType.CONTROL if t in added else gguf.TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def _rotate(key: str, rows: np.ndarray[Any, Any], config: Any) -> np.ndarray[Any, Any]:
    """As ggml's converter stores query and key rows of a llama."""
    heads = {
        "q_proj": config.num_attention_heads,
        "k_proj": config.num_key_value_heads,
    }.get(key.split(".")[-2])
    if config.model_type != "llama" or heads is None:
        return rows
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))
