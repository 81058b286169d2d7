"""Facts of models as they are published: real sizes, no weights."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from tests.unit.repositories import COMMIT, file
from warmrack_store.facts import RepositoryFacts, TensorFact, WeightFile

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
QWEN2_1B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "vocab_size": 151936,
}
GEMMA_2B: dict[str, Any] = {
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "head_dim": 256,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "rope_theta": 10000.0,
    "vocab_size": 256000,
}
APERTUS_8B: dict[str, Any] = {
    "architectures": ["ApertusForCausalLM"],
    "model_type": "apertus",
    "hidden_size": 4096,
    "intermediate_size": 21504,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rope_theta": 12000000,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    "tie_word_embeddings": False,
    "vocab_size": 131072,
}
_ELEMENT_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "U8": 1, "F8_E4M3": 1}
BNB_4BIT = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def model(
    repository: str,
    config: Mapping[str, Any],
    *,
    stored: str = "BF16",
    head: bool = True,
    chat_template: bool | None = None,
) -> RepositoryFacts:
    """A repository with this config; `stored` is BF16, nf4, fp8 or gptq, `head`: an own lm_head."""
    tensors = tuple(_tensors(config, stored, head=head))
    return RepositoryFacts(
        repository=repository,
        commit=COMMIT,
        files=(file("config.json"), file("model.safetensors")),
        config=dict(config),
        weights=(WeightFile(path="model.safetensors", tensors=tensors),),
        chat_template=chat_template,
    )


def _tensors(config: Mapping[str, Any], stored: str, *, head: bool) -> Iterable[TensorFact]:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    width = config.get("head_dim", hidden // config["num_attention_heads"])
    queries = width * config["num_attention_heads"]
    keys = width * config["num_key_value_heads"]
    inner = config["intermediate_size"]
    linears = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    yield _tensor("model.embed_tokens.weight", "BF16", vocabulary, hidden)
    if head:
        yield _tensor("lm_head.weight", "BF16", vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        yield _tensor(f"model.layers.{layer}.input_layernorm.weight", "BF16", hidden)
        for name, (rows, columns) in linears.items():
            yield from _linear(f"model.layers.{layer}.{name}", rows, columns, stored)


def _linear(name: str, rows: int, columns: int, stored: str) -> Iterable[TensorFact]:
    if stored == "nf4":
        blocks = rows * columns // 64
        yield _tensor(f"{name}.weight", "U8", rows * columns // 2, 1)
        yield _tensor(f"{name}.weight.absmax", "U8", blocks)
        yield _tensor(f"{name}.weight.nested_absmax", "F32", max(1, blocks // 256))
        yield _tensor(f"{name}.weight.nested_quant_map", "F32", 256)
        yield _tensor(f"{name}.weight.quant_map", "F32", 16)
        yield _tensor(f"{name}.weight.quant_state.bitsandbytes__nf4", "U8", 82)
    elif stored == "fp8":
        yield _tensor(f"{name}.weight", "F8_E4M3", rows, columns)
        yield _tensor(f"{name}.weight_scale_inv", "F32", rows // 128, columns // 128)
    elif stored == "gptq":
        yield _tensor(f"{name}.qweight", "I32", columns // 8, rows)
        yield _tensor(f"{name}.qzeros", "I32", columns // 128, rows // 8)
        yield _tensor(f"{name}.scales", "F16", columns // 128, rows)
        yield _tensor(f"{name}.g_idx", "I32", columns)
    else:
        yield _tensor(f"{name}.weight", stored, rows, columns)


def _tensor(name: str, dtype: str, *shape: int) -> TensorFact:
    size_bytes = prod(shape) * _ELEMENT_BYTES[dtype]
    return TensorFact(name=name, dtype=dtype, shape=shape, size_bytes=size_bytes)
