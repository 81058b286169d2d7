"""Tiny models as a publisher would quantize them with bitsandbytes and upload them."""

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.hub.models import get_model_folder


def tiny_llama_nf4(folder: Path) -> None:
    _quantize("tiny_llama", nf4(skipped=["lm_head", "model.layers.1.mlp"]), folder)


def tiny_llama_int8(folder: Path) -> None:
    _quantize("tiny_llama", int8(), folder)


def tiny_moe_nf4(folder: Path) -> None:
    _quantize("tiny_moe", nf4(), folder)


def tiny_bert_int8(folder: Path) -> None:
    _quantize("tiny_bert", int8(), folder)


def nf4(skipped: list[str] | None = None) -> transformers.BitsAndBytesConfig:
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=skipped,
    )


def int8() -> transformers.BitsAndBytesConfig:
    return transformers.BitsAndBytesConfig(load_in_8bit=True)


def load(
    folder: Path,
    declaration: transformers.BitsAndBytesConfig | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.nn.Module:
    """By the library alone: the class that the config names, on CPU."""
    config = transformers.AutoConfig.from_pretrained(folder)
    model_class = getattr(transformers, config.architectures[0])
    options = {"quantization_config": declaration} if declaration else {}
    model: torch.nn.Module = model_class.from_pretrained(
        folder, dtype=dtype, local_files_only=True, device_map={"": "cpu"}, **options
    )
    return model


def _quantize(name: str, declaration: transformers.BitsAndBytesConfig, folder: Path) -> None:
    source = get_model_folder(name)
    model: Any = load(source, declaration)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
