"""Where each tensor of a checkpoint went in a loaded model, by the library's own rules.

transformers renames keys on the way in (base-model prefixes, LayerNorm.gamma) and merges some
(one tensor for all experts of a layer). The rules are asked from the library, so that the audit
follows the code that loaded; what they name is then compared byte by byte.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """Checkpoint tensors that the library computes one or more tensors in memory from."""

    target: str
    converter: Any
    sources: list[tuple[str, str]] = field(default_factory=list)
    """(checkpoint name, the converter's pattern that it matched), in the library's order."""

    def derive(self, model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors that should be in memory, by name; `tensors` are the checkpoint's."""
        converter = deepcopy(self.converter)
        for name, pattern in self.sources:
            converter.add_tensor(self.target, name, pattern, _given(tensors[name]))
        derived = converter.convert(self.target, model=model, config=model.config)
        return {
            name: value[0] if isinstance(value, list) else value for name, value in derived.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointMap:
    renamed: dict[str, str]
    """Checkpoint name -> name in memory, for tensors that are kept as they are."""
    merges: tuple[Merge, ...]
    absent: tuple[str, ...]
    """Checkpoint tensors that the model has no place for."""


def map_checkpoint(model: Any, names: Iterable[str], held: Mapping[str, Any]) -> CheckpointMap:
    """`held` is the model's state dict. The steps are those of the library's own loading loop."""
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    prefix = model.base_model_prefix
    renamed: dict[str, str] = {}
    merges: dict[str, Merge] = {}
    absent: list[str] = []
    for name in sorted(names, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, prefix, held)
        if target not in held and name in held:
            target, pattern = rename_source_key(name, [], [], prefix, held)
        if target not in held:
            absent.append(name)
        elif pattern is None:
            renamed[name] = target
        else:
            merge = merges.setdefault(target, Merge(target=target, converter=by_pattern[pattern]))
            merge.sources.append((name, pattern))
    return CheckpointMap(renamed=renamed, merges=tuple(merges.values()), absent=tuple(absent))


def _given(tensor: torch.Tensor) -> Any:
    """A tensor in the form in which a converter collects them: something to call for it."""
    return lambda: tensor
