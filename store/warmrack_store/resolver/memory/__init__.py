"""Bytes a loaded model takes, computed from headers and config before anything moves."""

from collections.abc import Iterable, Mapping

from warmrack_store.durations import format_size
from warmrack_store.errors import WontFit
from warmrack_store.facts import WeightFile
from warmrack_store.resolution import Memory, Quantization
from warmrack_store.resolver.declared import Declared, generates
from warmrack_store.resolver.memory.cache import count_cached, measure_cache
from warmrack_store.resolver.memory.context import find_longest_context
from warmrack_store.resolver.memory.parameters import count_parameters
from warmrack_store.resolver.memory.weights import measure_weights
from warmrack_store.resolver.memory.workspace import find_element_bytes, measure_workspace
from warmrack_store.skeleton import Skeleton

__all__ = ["check_fits", "describe_memory", "estimate_memory", "find_longest_context"]

DEFAULT_CONTEXT_TOKENS = 4096
_MOST = 2**60
"""No machine has so much, and sums of it still fit SQL's integers."""


def estimate_memory(
    config: Mapping[str, object],
    weights: Iterable[WeightFile],
    max_seq_length: int | None,
    *,
    quantization: Quantization | None = None,
    cast: str | None = None,
    batch: int = 1,
    skeleton: Skeleton | None = None,
) -> Memory:
    """What the model is charged with for `batch` sequences of its context.

    The weights follow `skeleton` where one is known and the load quantizes, else the rule that
    reads the headers; where that rule cannot be sure, `notes` say so.
    """
    declared, files = Declared(config), tuple(weights)
    text = declared.text()
    context = min(max_seq_length or DEFAULT_CONTEXT_TOKENS, find_longest_context(text) or 2**31)
    parameters = count_parameters(declared, files, quantization, skeleton)
    held = measure_weights(parameters, quantization, cast)
    element_bytes = find_element_bytes(files, quantization, cast)
    cached = count_cached(declared, skeleton) if generates(declared.architecture) else ()
    cache_bytes = measure_cache(cached, context, element_bytes, batch)
    workspace_bytes = measure_workspace(declared, context, element_bytes, batch)
    return Memory(
        weights_bytes=min(held.weights_bytes, _MOST),
        quantization_state_bytes=min(held.state_bytes, _MOST),
        cache_bytes=min(cache_bytes, _MOST),
        context_tokens=context,
        batch=batch,
        workspace_bytes=min(workspace_bytes, _MOST),
        load_bytes=min(held.load_bytes, _MOST),
        notes=parameters.notes,
    )


def check_fits(memory: Memory, budgets: Mapping[str, int]) -> None:
    """Raise WontFit, with every device's budget, where no device could ever hold the model.

    `budgets` are bytes by device, whatever is in use there now; none at all is for the placement
    to judge.
    """
    if not budgets or memory.total_bytes <= max(budgets.values()):
        return
    shown = ", ".join(f"{name} {format_size(size)}" for name, size in sorted(budgets.items()))
    raise WontFit(f"the model needs {describe_memory(memory)}; the devices may give {shown}")


def describe_memory(memory: Memory) -> str:
    """The total and its parts, for people."""
    state, load = memory.quantization_state_bytes, memory.load_bytes
    sequences = f"{memory.batch} x " if memory.batch != 1 else ""
    parts = [
        f"weights {format_size(memory.weights_bytes)}",
        f"quantization state {format_size(state)}" if state else "",
        f"cache {format_size(memory.cache_bytes)} for {sequences}{memory.context_tokens} tokens",
        f"workspace {format_size(memory.workspace_bytes)}",
        f"load {format_size(load)}" if load > memory.cache_bytes + memory.workspace_bytes else "",
    ]
    return f"{format_size(memory.total_bytes)} ({', '.join(part for part in parts if part)})"
