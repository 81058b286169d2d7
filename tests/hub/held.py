"""What a loaded model really holds, counted storage by storage."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes of the storages behind tensors; one that several tensors share counts once."""

    weights_bytes: int
    """Parameters, and buffers that a checkpoint stores."""
    state_bytes: int
    """Quantization state."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.state_bytes


def read_held(model: Any) -> Held:
    storages: dict[int, tuple[str, int]] = {}
    for kind, tensor in _list_tensors(model):
        storage = tensor.untyped_storage()
        storages.setdefault(storage.data_ptr(), (kind, storage.nbytes()))
    return Held(
        weights_bytes=sum(size for kind, size in storages.values() if kind == "weights"),
        state_bytes=sum(size for kind, size in storages.values() if kind == "state"),
    )


def _list_tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    stored = set(model.state_dict())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in stored:
            yield "weights", tensor
        yield from (("state", one) for one in _list_state(tensor))
    for module in model.modules():
        state = getattr(module, "state", None)
        found = (getattr(state, name, None) for name in ("CB", "SCB"))
        yield from (("state", one) for one in found if isinstance(one, torch.Tensor))


def _list_state(parameter: torch.Tensor) -> Iterator[torch.Tensor]:
    """bitsandbytes' own attributes of a quantized parameter."""
    outer = getattr(parameter, "quant_state", None)
    inner = getattr(outer, "state2", None)
    owners = ((outer, ("absmax", "code", "offset")), (inner, ("absmax", "code")))
    for owner, names in (*owners, (parameter, ("CB", "SCB"))):
        found = (getattr(owner, name, None) for name in names)
        yield from (one for one in found if isinstance(one, torch.Tensor))


def list_cached(cache: Any) -> Iterator[torch.Tensor]:
    """The tensors of a filled cache."""
    for layer in cache.layers:
        for name in ("keys", "values"):
            if isinstance(held := getattr(layer, name, None), torch.Tensor):
                yield held
        for name in ("conv_states", "recurrent_states"):
            states = getattr(layer, name, None) or {}
            yield from (one for one in states.values() if isinstance(one, torch.Tensor))


def read_cache_bytes(cache: Any) -> int:
    """Bytes of the storages behind a filled cache."""
    storages = {one.untyped_storage().data_ptr(): one for one in list_cached(cache)}
    return sum(one.untyped_storage().nbytes() for one in storages.values())
