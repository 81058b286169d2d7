"""`python -m warmrack_workers.skeleton`: what a class is made of, counted on the meta device.

One line of JSON on stdin, `{"architecture", "config"}`; one on stdout, a `Skeleton`. The control
plane and the agent have no torch, so they ask a process that ends with its answer.
"""

import json
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from warmrack_store.database import Database
from warmrack_store.errors import HostLost, NotSupported
from warmrack_store.ledgers import skeletons
from warmrack_store.skeleton import CachedLayer, LinearShape, Skeleton

_DEADLINE_SECONDS = 120.0
"""A fresh process imports torch (5 s measured); a model of thousands of layers takes some more."""
_PROBED_TOKENS = 4
_FP32_BYTES = 4
_log = logging.getLogger(__name__)


def ask_skeleton(architecture: str, config: Mapping[str, object]) -> Skeleton:
    """The skeleton, counted in a process of its own.

    Raises NotSupported where the library cannot build the class from this config, and HostLost
    where the process does not end in time.
    """
    question = json.dumps({"architecture": architecture, "config": dict(config)})
    command = [sys.executable, "-m", "warmrack_workers.skeleton"]
    try:
        done = subprocess.run(
            command,
            check=False,
            input=question,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostLost(f"the layers of {architecture} could not be counted: {error}") from error
    lines = done.stdout.splitlines()
    try:
        return Skeleton.model_validate_json(lines[-1] if lines else "")
    except ValidationError as error:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise NotSupported(f"{architecture} cannot be built from its config: {said[0]}") from error


def learn_skeleton(
    database: Database, architecture: str, config: Mapping[str, object]
) -> Skeleton | None:
    """The skeleton of this config, counted at most once per cluster and kept in SQL.

    None where it cannot be counted: the rule by names then stands, with its note.
    """
    with database.read() as tx:
        known = skeletons.find_skeleton(tx, config)
    if known is not None:
        return known
    try:
        counted = ask_skeleton(architecture, config)
    except (NotSupported, HostLost) as error:
        _log.warning("%s", error, extra={"action": "skeleton-unknown"})
        return None
    with database.write() as tx:
        skeletons.put_skeleton(tx, config, counted)
    return counted


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is not the answer
    question = json.loads(sys.stdin.read())
    skeleton = count_skeleton(question["architecture"], question["config"])
    answers.write(skeleton.model_dump_json() + "\n")
    answers.flush()


def count_skeleton(architecture: str, config: Mapping[str, Any]) -> Skeleton:
    """Build the class on the meta device, where tensors have shapes and no bytes, and count."""
    import torch
    import transformers

    from warmrack_workers.backends.pretrained import get_model_class

    model_class = get_model_class(architecture)
    with torch.device("meta"):
        built = model_class.config_class.from_dict(dict(config))
        model = model_class._from_config(built, dtype=torch.bfloat16).eval()
    linears, elements = _list_linears(model), _count_parameters(model)
    apart = sum(shape.elements * shape.count for shape in linears)
    return Skeleton(
        architecture=architecture,
        library=f"transformers {transformers.__version__}",
        linears=linears,
        other_elements=elements.total() - apart,
        fp32_elements=elements["fp32"],
        persistent_buffer_bytes=_measure_buffers(model),
        cached=_count_cache(model),
    )


def _list_linears(model: Any) -> tuple[LinearShape, ...]:
    """Layers of the exact class that bitsandbytes replaces; those that share a weight count once."""
    import torch
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ())]
    own = {id(parameter) for _, parameter in model.named_parameters()}
    counted: Counter[tuple[int, int, bool]] = Counter()
    for name, module in model.named_modules():
        if not isinstance(module, Conv1D) and type(module) is not torch.nn.Linear:
            continue
        if id(module.weight) in own:
            own.discard(id(module.weight))
            shape = tuple(module.weight.shape)
            rows, columns = reversed(shape) if isinstance(module, Conv1D) else shape
            counted[columns, rows, bool(should_convert_module(name, kept))] += 1
    return tuple(
        LinearShape(in_features=columns, out_features=rows, quantizable=quantizable, count=count)
        for (columns, rows, quantizable), count in sorted(counted.items())
    )


def _count_parameters(model: Any) -> Counter[str]:
    """Elements by `plain` and `fp32`; the library dedupes tied parameters by identity."""
    counted: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counted["fp32" if _stays_fp32(model, name) else "plain"] += parameter.numel()
    return counted


def _stays_fp32(model: Any, name: str) -> bool:
    """By the class's own list, whose entries are patterns of whole parts of a name."""
    strict = model._keep_in_fp32_modules_strict or ()
    return any(re.search(rf"(?:^|\.){pattern}(?:\.|$)", name) for pattern in strict)


def _measure_buffers(model: Any) -> int:
    """Bytes of the buffers that a checkpoint stores."""
    stored = set(model.state_dict())
    total = 0
    for name, buffer in model.named_buffers():
        if name in stored:
            width = _FP32_BYTES if _stays_fp32(model, name) else buffer.element_size()
            total += buffer.numel() * width
    return total


def _count_cache(model: Any) -> tuple[CachedLayer, ...] | None:
    """What a forward pass of a few tokens leaves in the cache; None where there is none to see."""
    import torch

    if not model.can_generate() or model.config.is_encoder_decoder:
        return None
    prompt = torch.ones(1, _PROBED_TOKENS, dtype=torch.long, device="meta")
    try:
        with torch.inference_mode():
            cache = model(input_ids=prompt, use_cache=True).past_key_values
        layers = Counter(_read_layer(layer) for layer in cache.layers)
    except Exception as error:
        # Code that looks at values fails here in its own way; then the config's rule counts.
        _log.warning("the cache of %s cannot be counted: %r", type(model).__name__, error)
        return None
    return tuple(one.model_copy(update={"count": count}) for one, count in layers.items())


def _read_layer(layer: Any) -> CachedLayer:
    growing = sum(tensor.numel() for tensor in _list_held(layer, "keys", "values"))
    fixed: Counter[bool] = Counter()
    for state in _list_held(layer, "conv_states", "recurrent_states"):
        fixed[state.element_size() == _FP32_BYTES] += state.numel()
    return CachedLayer(
        elements_per_token=growing // _PROBED_TOKENS,
        window_tokens=getattr(layer, "sliding_window", None),
        fixed_elements=fixed[False],
        fixed_fp32_elements=fixed[True],
        count=1,
    )


def _list_held(layer: Any, *names: str) -> Iterator[Any]:
    for name in names:
        held = getattr(layer, name, None)
        tensors = held.values() if isinstance(held, dict) else (held,)
        yield from (tensor for tensor in tensors if tensor is not None)


if __name__ == "__main__":
    main()
