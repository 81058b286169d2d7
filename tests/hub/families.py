"""Models of many families with random weights, in any size, saved as a publisher would."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from warmrack_store.cache.safetensors_header import parse_header
from warmrack_store.facts import WeightFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The sizes that the families share."""

    hidden: int
    layers: int
    vocabulary: int

    @property
    def decoder(self) -> dict[str, Any]:
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.hidden * 5 // 2,
            "num_hidden_layers": self.layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }


TINY = Scale(hidden=64, layers=3, vocabulary=320)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    model: str
    config: str
    sizes: Mapping[str, Any]
    encoder: bool = False


_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_LINEAR_ATTENTION: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_experts": 4,
    "shared_expert_intermediate_size": 48,
}
_SLIDING: dict[str, Any] = {"head_dim": 16, "sliding_window": 8}


def _family(stem: str, head: str = "ForCausalLM", config: str = "Config", **sizes: Any) -> Family:
    return Family(model=f"{stem}{head}", config=f"{stem}{config}", sizes=sizes)


FAMILIES: dict[str, Family] = {
    "llama": _family("Llama"),
    "llama_tied": _family("Llama", tie_word_embeddings=True),
    "qwen2": _family("Qwen2"),
    "qwen3": _family("Qwen3", head_dim=32, tie_word_embeddings=True),
    "mistral": _family("Mistral", sliding_window=8),
    "phi3": _family("Phi3", sliding_window=8),
    "gemma2": _family("Gemma2", **_SLIDING),
    "gemma3": _family("Gemma3", config="TextConfig", **_SLIDING),
    "mixtral": _family("Mixtral", num_local_experts=4),
    "qwen2_moe": _family("Qwen2Moe", num_experts=4, shared_expert_intermediate_size=96, **_EXPERTS),
    "qwen3_moe": _family("Qwen3Moe", num_experts=4, head_dim=16, **_EXPERTS),
    "qwen3_next": _family("Qwen3Next", head_dim=16, **_EXPERTS, **_LINEAR_ATTENTION),
    "deepseek_v2": _family("DeepseekV2", **_LATENT, **_EXPERTS),
    "deepseek_v3": _family("DeepseekV3", **_LATENT, **_EXPERTS),
    "score": _family("Qwen3", head="ForSequenceClassification", head_dim=16),
    "gpt2": _family("GPT2", head="LMHeadModel", n_inner=160),
    "bert": Family(model="BertForMaskedLM", config="BertConfig", sizes={}, encoder=True),
    "bert_model": Family(model="BertModel", config="BertConfig", sizes={}, encoder=True),
    "roberta": Family(model="RobertaForMaskedLM", config="RobertaConfig", sizes={}, encoder=True),
}


def get_class(name: str) -> Any:
    return getattr(transformers, FAMILIES[name].model)


_QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "nf4": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.bfloat16,
    },
    "int8": {"load_in_8bit": True},
}
QUANTIZATIONS = tuple(_QUANTIZATIONS)


def make_quantization(method: str) -> Any:
    """bitsandbytes' own settings for a load that quantizes."""
    return transformers.BitsAndBytesConfig(**_QUANTIZATIONS[method])


def make_config(name: str, scale: Scale = TINY, **sizes: Any) -> Any:
    """The family's config; `sizes` win over the scale and the family's own."""
    family, common = FAMILIES[name], scale.decoder
    if family.encoder or name == "gpt2":
        del common["num_key_value_heads"]  # these have none, and would store it unread
    return getattr(transformers, family.config)(**{**common, **family.sizes, **sizes})


def save_family(
    name: str,
    folder: Path,
    scale: Scale = TINY,
    *,
    dtype: torch.dtype = torch.bfloat16,
    **sizes: Any,
) -> None:
    torch.manual_seed(0)
    model = get_class(name)(make_config(name, scale, **sizes)).to(dtype)
    model.save_pretrained(folder)


def read_saved(folder: Path) -> tuple[dict[str, Any], tuple[WeightFile, ...]]:
    """config.json and the headers, as the facts of a repository have them."""
    config = json.loads((folder / "config.json").read_text())
    return config, tuple(_read_file(path) for path in sorted(folder.glob("*.safetensors")))


def _read_file(path: Path) -> WeightFile:
    data = path.read_bytes()
    return WeightFile(path=path.name, tensors=parse_header(data, len(data)))
