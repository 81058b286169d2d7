"""A snapshot as transformers loads it: the class that its config names, and its tokenizer."""

import time
from collections import Counter
from math import prod
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from warmrack_store.errors import Integrity, NotExact, NotSupported, OutOfMemory
from warmrack_store.resolver.quantization import is_quantization_state
from warmrack_workers.backends import LoadedModel
from warmrack_workers.backends.dtypes import PRECISION_DTYPES, TORCH_DTYPES
from warmrack_workers.exhaustion import out_of_memory_as_refusal
from warmrack_workers.host_spec import HostSpec


def load_pretrained(spec: HostSpec, **options: Any) -> LoadedModel:
    """The model and its tokenizer; `options` go to the library's `from_pretrained`.

    With `gguf_file` among them that file is the tokenizer too. Raises NotSupported, NotExact,
    OutOfMemory and Integrity.
    """
    model_class = get_model_class(spec.resolution.architecture)
    started = time.perf_counter()
    tokenizer = _load_tokenizer(spec, options.get("gguf_file"))
    tokenized = time.perf_counter()
    model, info = _load_model(model_class, spec, options)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        missing=tuple(sorted(info["missing_keys"])),
        unexpected=tuple(sorted(info["unexpected_keys"])),
        mismatched=tuple(sorted(str(key) for key in info["mismatched_keys"])),
        timings={
            "tokenizer_seconds": tokenized - started,
            "weights_seconds": time.perf_counter() - tokenized,
        },
    )


def get_model_class(architecture: str | None) -> Any:
    """The library's class of that name. Raises NotSupported."""
    found = getattr(transformers, architecture, None) if architecture else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise NotSupported(
            f"architecture {architecture!r} is not in transformers {transformers.__version__}",
            hint="The config's architectures[0] must be a class of the installed library.",
        )
    return found


def load_dtype(spec: HostSpec) -> torch.dtype:
    """The declared cast, else the floating dtype that holds most of the checkpoint's bytes.

    Passed to the library by name, because its `auto` believes config.json, which often names
    another dtype than the tensors have, and then casts. A checkpoint that mixes dtypes keeps
    only those that the class itself keeps; the audit refuses the rest.
    """
    if spec.resolution.cast is not None:
        return PRECISION_DTYPES[spec.resolution.cast]
    sizes: Counter[torch.dtype] = Counter()
    for name, leaf in spec.leaves.items():
        dtype = TORCH_DTYPES.get(leaf.dtype)
        if dtype is not None and dtype.is_floating_point and not is_quantization_state(name):
            sizes[dtype] += prod(leaf.shape) * dtype.itemsize
    return sizes.most_common(1)[0][0] if sizes else torch.float32


def _load_model(
    model_class: Any, spec: HostSpec, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    try:
        with out_of_memory_as_refusal(f"{spec.model} did not fit on {spec.device}"):
            model, info = model_class.from_pretrained(
                str(spec.snapshot_dir),
                local_files_only=True,
                use_safetensors=True,
                dtype=load_dtype(spec),
                output_loading_info=True,
                **options,
            )
    except SafetensorError as error:
        raise Integrity(f"{spec.model}: a weights file cannot be parsed: {error}") from error
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotExact(f"{spec.model} cannot be loaded as its config says: {error}") from error
    return model, info


def _load_tokenizer(spec: HostSpec, gguf_file: str | None) -> Any | None:
    if not spec.resolution.tokenizer_files and gguf_file is None:
        return None
    options = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        with out_of_memory_as_refusal(f"{spec.model} did not fit on {spec.device}"):
            return transformers.AutoTokenizer.from_pretrained(
                str(spec.snapshot_dir), local_files_only=True, trust_remote_code=False, **options
            )
    except OutOfMemory:
        raise
    except Exception as error:
        # The tokenizers library raises bare Exception for a file that it cannot parse.
        raise NotExact(f"{spec.model}: its tokenizer cannot be loaded: {error}") from error
