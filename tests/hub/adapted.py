"""LoRA adapters for the tiny models, as peft saves them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from tests.hub.adapter_bases import name_base
from tests.hub.models import get_model_folder

BASE = "acme/tiny-llama"
"""What the adapters call their base."""


def tiny_lora(folder: Path) -> None:
    save_adapter(folder, target_modules=["q_proj", "v_proj", "down_proj"])


def tiny_lora_wide(folder: Path) -> None:
    """All that a plain LoRA may have: magnitudes, rank patterns, a saved module, an embedding."""
    save_adapter(
        folder,
        seed=6,
        target_modules=["q_proj", "o_proj", "embed_tokens"],
        modules_to_save=["lm_head"],
        rank_pattern={"o_proj": 2},
        alpha_pattern={"o_proj": 3},
        use_rslora=True,
        use_dora=True,
    )


def save_adapter(
    folder: Path, *, seed: int = 5, base: str = BASE, revision: str | None = None, **settings: Any
) -> None:
    """An adapter for `tiny_llama` whose second factors are not zero, as after a training."""
    model = transformers.AutoModelForCausalLM.from_pretrained(get_model_folder("tiny_llama"))
    torch.manual_seed(seed)
    options = {"r": 4, "lora_alpha": 8, "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    with quietly():
        adapted = get_peft_model(model, LoraConfig(**{**options, **settings}))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    with quietly():
        adapted.save_pretrained(folder, save_embedding_layers=False)
    name_base(folder, base, revision)


@contextmanager
def quietly() -> Iterator[None]:
    """peft reads an attribute that transformers has deprecated, and warns of what we intend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_adapted(
    base: Path, adapter: Path, *, dtype: torch.dtype = torch.float32, **options: Any
) -> torch.nn.Module:
    """By transformers and peft alone, on CPU."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, device_map={"": "cpu"}, **options
    )
    with quietly():
        adapted: torch.nn.Module = PeftModel.from_pretrained(model, adapter).eval()
    return adapted
