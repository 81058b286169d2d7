"""A LoRA adapter on a loaded model: attached by peft, proved tensor by tensor, told apart again.

peft puts each changed layer inside one of its own, which holds the base's layer and the adapter's
tensors beside it. The base's audit looks at a bare copy of the modules, so that it sees what it
would see without an adapter; the tensors of both are the same memory.
"""

import copy
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from warmrack_store.errors import DeviceUnsupported, Integrity, NotExact
from warmrack_workers.audit import Evidence, TensorEvidence
from warmrack_workers.backends import LoadedModel
from warmrack_workers.backends.dtypes import stored_name
from warmrack_workers.evidence import gather_evidence
from warmrack_workers.exhaustion import out_of_memory_as_refusal
from warmrack_workers.host_spec import HostSpec
from warmrack_workers.tensor_proofs import leaf_of

_NAME = "default"
_PREFIX = "base_model.model."
"""What peft writes before the name of a module."""
_VECTOR = ".lora_magnitude_vector"
_OUTSIDE_CONFIG = frozenset({"inference_mode", "peft_version"})


def attach(spec: HostSpec, loaded: LoadedModel) -> LoadedModel:
    """The model with the spec's adapter on it; as it was where there is none.

    The adapter's tensors keep their stored dtype. Raises DeviceUnsupported, Integrity, NotExact
    and OutOfMemory.
    """
    part = spec.adapter_spec()
    if part is None:
        return loaded
    started = time.perf_counter()
    try:
        with out_of_memory_as_refusal(f"{part.resolution.repository} did not fit"):
            _attach(part, loaded.model)
    except ImportError as error:
        raise DeviceUnsupported(
            f"peft cannot be used on this node: {error}", hint="Install the worker extra there."
        ) from error
    except SafetensorError as error:
        raise Integrity(f"{part.resolution.repository} cannot be parsed: {error}") from error
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotExact(
            f"{part.resolution.repository} cannot be attached as its config says: {error}"
        ) from error
    timings = {**loaded.timings, "adapter_seconds": time.perf_counter() - started}
    return replace(loaded, timings=timings)


def _attach(part: HostSpec, model: Any) -> None:
    from peft import PeftModel

    with warnings.catch_warnings():
        # Tensors without a place, and places without a tensor, are for the audit to name.
        warnings.simplefilter("ignore")
        PeftModel.from_pretrained(
            model,
            str(part.snapshot_dir),
            adapter_name=_NAME,
            is_trainable=False,
            torch_device=str(model.device),
            autocast_adapter_dtype=False,
            low_cpu_mem_usage=True,
            local_files_only=True,
        )
    _keep_stored_dtypes(part, model)
    model.eval()


def _keep_stored_dtypes(part: HostSpec, model: Any) -> None:
    """peft casts what it reads to the base's dtype, which may be a narrower one."""
    held = list_held(model)
    path = part.snapshot_dir / part.resolution.weights[0]
    with safe_open(path, framework="pt", device=str(model.device)) as file:
        for name, target in _name_in_file(held).items():
            leaf = part.leaves.get(name)
            if leaf is not None and leaf.dtype != stored_name(held[target].dtype):
                model.get_parameter(target).data = file.get_tensor(name)


def gather_all(spec: HostSpec, loaded: LoadedModel) -> Evidence:
    """The evidence about the model and, where it has one, its adapter."""
    part = spec.adapter_spec()
    if part is None:
        return gather_evidence(spec, loaded)
    base = gather_evidence(spec, replace(loaded, model=make_bare(loaded.model)))
    started = time.perf_counter()
    found = prove_adapter(part, loaded.model)
    return replace(
        base,
        tensors=(*base.tensors, *found.tensors),
        adapter_tensors=len(found.tensors),
        unbacked=(*base.unbacked, *found.unbacked),
        unexpected=(*base.unexpected, *found.unexpected),
        config_changes=(*base.config_changes, *found.config_changes),
        audit_seconds=base.audit_seconds + time.perf_counter() - started,
        versions={**base.versions, "peft": version("peft")},
    )


def make_bare(module: Any) -> Any:
    """The module without adapters: the same tensors, and new modules only above changed ones.

    The module itself stays as it is, so that it can serve meanwhile.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    if isinstance(module, BaseTunerLayer):
        return make_bare(module.get_base_layer())
    if isinstance(module, ModulesToSaveWrapper):
        return make_bare(module.original_module)
    children = {
        name: child if child is None else make_bare(child)
        for name, child in module._modules.items()
    }
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    bare = copy.copy(module)
    bare.__dict__["_modules"] = children
    return bare


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterProof:
    """What the adapter in memory is, against its file and config."""

    tensors: tuple[TensorEvidence, ...]
    """One for each tensor of the file that has a place, in name order."""
    unbacked: tuple[str, ...]
    """The adapter's tensors in memory that its file does not hold."""
    unexpected: tuple[str, ...]
    """Tensors of the file without a place."""
    config_changes: tuple[str, ...]


def prove_adapter(part: HostSpec, model: Any) -> AdapterProof:
    """`part` is the spec as if the adapter were the model."""
    held = list_held(model)
    known = {name: target for name, target in _name_in_file(held).items() if name in part.leaves}
    with ThreadPoolExecutor(part.threads, thread_name_prefix="audit") as pool:
        leaves = pool.map(lambda target: leaf_of(held[target]), known.values())
        tensors = [
            TensorEvidence(
                name=name,
                target=target,
                expected_dtype=part.leaves[name].dtype,
                actual_dtype=stored_name(held[target].dtype),
                expected=part.leaves[name].leaf,
                actual=leaf,
            )
            for (name, target), leaf in zip(known.items(), leaves, strict=True)
        ]
    return AdapterProof(
        tensors=tuple(sorted(tensors, key=lambda tensor: tensor.name)),
        unbacked=tuple(sorted(held.keys() - known.values())),
        unexpected=tuple(sorted(part.leaves.keys() - known.keys())),
        config_changes=tuple(_list_changes(part, model)),
    )


def list_held(model: Any) -> dict[str, torch.Tensor]:
    """The adapters' own tensors in memory, by their names there."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    held: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        base = {BaseTunerLayer: "base_layer.", ModulesToSaveWrapper: "original_module."}
        inside = next((inner for kind, inner in base.items() if isinstance(module, kind)), None)
        if inside is not None:
            held |= {
                f"{name}.{key}": tensor
                for key, tensor in module.state_dict().items()
                if not key.startswith(inside)
            }
    return held


def _name_in_file(held: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """By peft's name in the file: the name in memory, which says which adapter it is of too."""
    found = {}
    for target in held:
        name = target.replace(f".modules_to_save.{_NAME}.", ".").replace(f".{_NAME}", "")
        found[_PREFIX + name.replace(f"{_VECTOR}.weight", _VECTOR)] = target
    return found


def _list_changes(part: HostSpec, model: Any) -> Iterator[str]:
    """What the adapter's config and layers are, other than a fresh parse of the file says."""
    from peft import PeftConfig
    from peft.tuners.lora import LoraLayer

    fresh = PeftConfig.from_pretrained(str(part.snapshot_dir))
    used = getattr(model, "peft_config", {})
    if used.keys() != {_NAME}:
        yield f"adapters are {sorted(used)}"
        return
    stored, applied = fresh.to_dict(), used[_NAME].to_dict()
    for key in sorted(stored.keys() - _OUTSIDE_CONFIG):
        if applied.get(key) != stored[key]:
            yield f"adapter's {key} is {applied.get(key)!r}, stored as {stored[key]!r}"
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield from _list_layer_changes(fresh, name, module)


def _list_layer_changes(config: Any, name: str, layer: Any) -> Iterator[str]:
    scaling = _scale(config, name)
    if layer.scaling != {_NAME: scaling}:
        yield f"{name} is scaled by {layer.scaling.get(_NAME)}, should be by {scaling:g}"
    if layer.merged or layer.disable_adapters or list(layer.active_adapters) != [_NAME]:
        yield f"{name} does not have the adapter attached"


def _scale(config: Any, name: str) -> float:
    """LoRA's alpha/r, and alpha/sqrt(r) with rank stabilisation (arXiv 2312.03732)."""
    from peft.utils.other import get_pattern_key

    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern, name), config.r)
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, name), config.lora_alpha)
    return float(alpha / math.sqrt(rank) if config.use_rslora else alpha / rank)
