"""The gguf backend: one GGUF file, unpacked by transformers into fp32."""

from dataclasses import replace
from typing import Any

import torch
import transformers

from warmrack_workers.backends import LoadedModel
from warmrack_workers.backends.cuda import place_on_cuda
from warmrack_workers.backends.pretrained import load_pretrained
from warmrack_workers.host_spec import HostSpec


class GgufBackend:
    """Model, config and tokenizer are all read from the file."""

    def load(self, spec: HostSpec) -> LoadedModel:
        path = get_gguf_file(spec)
        loaded = load_pretrained(spec, gguf_file=path, quantization_config=make_config(path))
        device = torch.device(spec.device)
        if device.type != "cuda":
            return loaded
        return replace(loaded, model=place_on_cuda(loaded.model, device))


def get_gguf_file(spec: HostSpec) -> str:
    (path,) = spec.resolution.weights
    return path


def make_config(path: str) -> Any:
    """Always unpacked: the library would keep packed what it happens to find kernels for."""
    return transformers.GgufConfig(gguf_file=path, dequantize=True)
