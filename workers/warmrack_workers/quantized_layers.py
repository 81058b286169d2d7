"""The layers of a loaded model that bitsandbytes quantized, and which ones it should have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from warmrack_store.resolution import Quantization, QuantizationSource
from warmrack_store.resolver.quantization import PACKED_STATE
from warmrack_workers.host_spec import HostSpec

_QUANTIZERS = ("bitsandbytes", "torchao", "auto_gptq", "awq", "hqq", "quanto", "optimum")
_CLASSES = {
    "nf4": "bitsandbytes.nn.modules.Linear4bit",
    "int8": "bitsandbytes.nn.modules.Linear8bitLt",
}
_FORMAT = ".weight_format"
"""Beside an int8 weight: the layout of its rows, a constant that older checkpoints lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedLayers:
    """Of one loaded model, by the resolution's quantization."""

    quantization: Quantization | None
    model: Any
    found: Mapping[str, str]
    """Module name -> class, of every module that comes from a quantization library."""

    def makes(self, target: str) -> bool:
        """Whether a tensor of this name in memory was quantized at the load."""
        quantization = self.quantization
        if quantization is None or quantization.source is not QuantizationSource.ON_THE_FLY:
            return False
        module, _, parameter = target.rpartition(".")
        return parameter == "weight" and module in self.found

    def quantize(self, target: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the state dict should hold of a weight, quantized once more from the full tensor.

        On the device of the model: other kernels may round otherwise.
        """
        assert self.quantization is not None, "only asked for what was quantized at the load"
        module = self.model.get_submodule(target.removesuffix(".weight"))
        device = module.weight.device
        if issubclass(module.source_cls, Conv1D):
            tensor = tensor.T
        if self.quantization.method == "int8":
            return _quantize_int8(target, tensor, device)
        return _quantize_nf4(target, tensor, device)


def find_layers(model: Any, quantization: Quantization | None) -> QuantizedLayers:
    return QuantizedLayers(
        quantization=quantization,
        model=model,
        found={
            name: f"{type(module).__module__}.{type(module).__qualname__}"
            for name, module in model.named_modules()
            if type(module).__module__.partition(".")[0] in _QUANTIZERS
        },
    )


def list_differences(
    spec: HostSpec, layers: QuantizedLayers, kept: Iterable[str]
) -> tuple[str, ...]:
    """Modules that are quantized although they should not be, the reverse, or by another method.

    `kept` are the names in memory of the checkpoint's tensors.
    """
    quantization = spec.resolution.quantization
    expected = set(list_expected(spec, layers.model, kept)) if quantization else set()
    wanted = _CLASSES.get(quantization.method) if quantization else None
    wrong = [
        f"{name} is {kind}"
        for name, kind in sorted(layers.found.items())
        if name not in expected or kind != wanted or not _has_type(layers.model, name)
    ]
    wrong += [f"{name} is not quantized" for name in sorted(expected - layers.found.keys())]
    return tuple(wrong)


def list_expected(spec: HostSpec, model: Any, kept: Iterable[str]) -> tuple[str, ...]:
    """Stored quantized: the modules whose state the checkpoint holds. Quantized at the load: the
    linear layers of a plain model of the same config, less what the library's rule leaves."""
    quantization = spec.resolution.quantization
    if quantization is None or quantization.method not in _CLASSES:
        return ()
    if quantization.source is QuantizationSource.STORED:
        return tuple(_list_stored(kept))
    plain = build_plain(spec, type(model))
    left = HfQuantizer.get_modules_to_not_convert(
        plain, list(quantization.skipped) or None, plain._keep_in_fp32_modules
    )
    return tuple(name for name in list_linear(plain) if should_convert_module(name, left))


def build_plain(spec: HostSpec, model_class: Any) -> Any:
    """The class as the stored config makes it, without weights."""
    config = AutoConfig.from_pretrained(
        str(spec.snapshot_dir), local_files_only=True, trust_remote_code=False
    )
    with torch.device("meta"):
        return model_class(config)


def list_linear(model: Any) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear or isinstance(module, Conv1D)
    ]


def drop_formats(names: Iterable[str], backed: Iterable[str]) -> list[str]:
    """Without the format tags of int8 weights that are accounted for."""
    kept = set(backed)
    return [
        name
        for name in names
        if not (name.endswith(_FORMAT) and f"{name.removesuffix(_FORMAT)}.SCB" in kept)
    ]


def _list_stored(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        weight, packed, _ = name.partition(PACKED_STATE)
        if packed:
            yield weight.removesuffix(".weight")
        elif name.endswith(".SCB"):
            yield name.removesuffix(".SCB")


def _has_type(model: Any, name: str) -> bool:
    """A 4-bit layer may hold fp4 as well, which its state alone tells."""
    state = getattr(model.get_submodule(name).weight, "quant_state", None)
    return state is None or state.quant_type == "nf4"


def _quantize_nf4(
    target: str, tensor: torch.Tensor, device: torch.device
) -> dict[str, torch.Tensor]:
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(
        tensor.contiguous().to(device), compress_statistics=True, quant_type="nf4"
    )
    held = {f"{target}.{key}": value for key, value in state.as_dict(packed=True).items()}
    return {target: packed, **held}


def _quantize_int8(
    target: str, tensor: torch.Tensor, device: torch.device
) -> dict[str, torch.Tensor]:
    from bitsandbytes.functional import int8_vectorwise_quant

    rows, scales, _ = int8_vectorwise_quant(tensor.contiguous().to(device, torch.float16))
    return {target: rows, f"{target.removesuffix('.weight')}.SCB": scales}
