"""The bnb backend: nf4 and int8 by bitsandbytes, stored so or quantized at the load."""

import importlib
from typing import Any

import torch
import transformers

from warmrack_store.errors import DeviceUnsupported
from warmrack_store.resolution import Quantization, QuantizationSource
from warmrack_workers.backends import LoadedModel
from warmrack_workers.backends.dtypes import PRECISION_DTYPES
from warmrack_workers.backends.pretrained import load_pretrained
from warmrack_workers.host_spec import HostSpec


class BnbBackend:
    """Replaces linear layers by bitsandbytes'; what that library leaves, it leaves.

    Experts that transformers keeps as one tensor a layer are none, and stay as stored.
    """

    def load(self, spec: HostSpec) -> LoadedModel:
        device = torch.device(spec.device)
        check_device(device)
        options: dict[str, Any] = {"device_map": {"": device}}
        quantization = spec.resolution.quantization
        if quantization is not None and quantization.source is QuantizationSource.ON_THE_FLY:
            options["quantization_config"] = make_config(quantization)
        return load_pretrained(spec, **options)


def check_device(device: torch.device) -> None:
    """Raise DeviceUnsupported where the library is missing or has no code for the device."""
    try:
        library = importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise DeviceUnsupported(
            f"bitsandbytes cannot be used on this node: {error}",
            hint="Install the worker extra there, or ask for precision checkpoint.",
        ) from error
    if device.type not in library.supported_torch_devices:
        raise DeviceUnsupported(f"bitsandbytes {library.__version__} has no code for {device}")


def make_config(quantization: Quantization) -> Any:
    """What the library is told for a quantization at the load.

    nf4 with double quantization, as Unsloth and the QLoRA paper have it (arXiv 2305.14314).
    """
    skipped = list(quantization.skipped) or None
    if quantization.method == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=PRECISION_DTYPES[quantization.compute_dtype],
        llm_int8_skip_modules=skipped,
    )


def read_declaration(stored: Any, quantization: Quantization) -> dict[str, Any]:
    """The config's declaration as the library spells it after such a load."""
    if quantization.source is QuantizationSource.ON_THE_FLY:
        return dict(make_config(quantization).to_dict())
    return dict(transformers.BitsAndBytesConfig.from_dict(stored).to_dict())
