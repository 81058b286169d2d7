"""What each tensor in memory should be by the checkpoint's tensors, against what it is.

Where a load keeps bytes, memory is hashed against the leaf kept since the fetch. Where it makes
others (a cast, a merge, a quantization), the stored tensor is hashed, the making is repeated, and
its result is compared with memory bit by bit.
"""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import safe_open
from transformers.core_model_loading import build_glob_alternation

from warmrack_store.resolver.quantization import PACKED_STATE
from warmrack_store.tensors import leaf_digest, root_digest
from warmrack_workers.audit import TensorEvidence
from warmrack_workers.backends.dtypes import PRECISION_DTYPES, stored_name
from warmrack_workers.checkpoint_map import CheckpointMap, Merge
from warmrack_workers.host_spec import HostSpec
from warmrack_workers.quantized_layers import QuantizedLayers


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    tensors: tuple[TensorEvidence, ...]
    """One for each tensor of the checkpoint that the model has a place for, in name order."""
    backed: frozenset[str]
    """The names in memory that they account for."""
    absent: tuple[str, ...]
    """Checkpoint tensors that the model has no place for, as its class may declare: the library
    says which of them are unexpected."""
    unplaced: tuple[str, ...] = ()
    """The same, where no library would say anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prover:
    """Of one loaded model."""

    spec: HostSpec
    model: Any
    held: Mapping[str, torch.Tensor]
    """Its state dict."""
    places: CheckpointMap
    quantized: QuantizedLayers
    backed: set[str] = field(default_factory=set)

    def prove(self, pool: Executor) -> Proofs:
        """Every tensor; `pool` hashes."""
        kept: dict[str, str] = {}
        made: dict[str, str] = {}
        for name, target in self.places.renamed.items():
            (made if self._is_made(name, target) else kept)[name] = target
        tensors = [*self._prove_kept(kept, pool)]
        # A quantization is threaded already; two of them at once would fight for the cores.
        apply = pool.map if self.quantized.quantization is None else map
        tensors += apply(self._prove_made, made.keys(), made.values())
        for merge in self.places.merges:
            tensors += self._prove_merge(merge)
        return Proofs(
            tensors=tuple(sorted(tensors, key=lambda tensor: tensor.name)),
            backed=frozenset(self.backed),
            absent=self.places.absent,
        )

    def _is_made(self, name: str, target: str) -> bool:
        """Whether the load made it of the stored tensor, instead of keeping that."""
        stored = self.spec.leaves[name].dtype
        expected = self._expect_dtype(target, stored)
        return expected != stored or self.quantized.makes(target)

    def _prove_kept(self, kept: Mapping[str, str], pool: Executor) -> Iterator[TensorEvidence]:
        leaves = pool.map(lambda target: leaf_of(self.held[target]), kept.values())
        for (name, target), leaf in zip(kept.items(), leaves, strict=True):
            self.backed.add(target)
            expected = self.spec.leaves[name].leaf
            if leaf != expected and PACKED_STATE in name:
                yield self._prove_packed(name, target)
            else:
                yield self._evidence(name, target, self.held[target].dtype, leaf)

    def _prove_packed(self, name: str, target: str) -> TensorEvidence:
        """Other releases of the library spell the same JSON otherwise; it is compared by content."""
        with ExitStack() as stack:
            stored, held = self._read(stack, name), self.held[target]
            same = _parse_packed(stored) == _parse_packed(held)
            return self._evidence(name, target, held.dtype, leaf_of(stored if same else held))

    def _prove_made(self, name: str, target: str) -> TensorEvidence:
        with ExitStack() as stack:
            stored = self._read(stack, name)
            expected = self._expect(target, self._cast(target, stored))
            return self._compare({name: stored}, target, expected)[0]

    def _prove_merge(self, merge: Merge) -> list[TensorEvidence]:
        """The parts have their leaves in the file, and what they give is what is in memory."""
        with ExitStack() as stack:
            parts = {name: self._read(stack, name) for name, _ in merge.sources}
            cast = {name: self._cast(merge.target, part) for name, part in parts.items()}
            expected: dict[str, torch.Tensor] = {}
            for target, tensor in merge.derive(self.model, cast).items():
                expected |= self._expect(target, tensor)
            return self._compare(parts, merge.target, expected)

    def _compare(
        self,
        parts: Mapping[str, torch.Tensor],
        target: str,
        expected: Mapping[str, torch.Tensor],
    ) -> list[TensorEvidence]:
        self.backed.update(expected)
        equal = all(
            name in self.held and _same(self.held[name], tensor)
            for name, tensor in expected.items()
        )
        made = {name: leaf_of(tensor) for name, tensor in expected.items()}
        served = root_digest(made) if self._is_made(next(iter(parts)), target) else None
        dtype = expected[target].dtype if target in expected else self.held[target].dtype
        return [
            self._evidence(name, target, dtype, leaf_of(part) if equal else None, served)
            for name, part in parts.items()
        ]

    def _expect(self, target: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the state dict should hold for a full tensor: itself, or its quantization."""
        if self.quantized.makes(target):
            return self.quantized.quantize(target, tensor)
        return {target: tensor}

    def _cast(self, target: str, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self._expect_dtype(target, stored_name(tensor.dtype))
        wanted = {stored_name(one): one for one in PRECISION_DTYPES.values()}.get(dtype)
        return tensor if wanted is None else tensor.to(wanted)

    def _expect_dtype(self, target: str, stored: str) -> str:
        """The cast that was asked for, of a float; fp32 for what the class keeps so."""
        cast = self.spec.resolution.cast
        if cast is None or not stored.startswith(("F64", "F32", "F16", "BF16")):
            return stored
        plan = self.model._get_dtype_plan(PRECISION_DTYPES[cast])
        if plan:
            pattern, _, _ = build_glob_alternation(list(plan))
            if re.search(pattern, target):
                return "F32"
        return stored_name(PRECISION_DTYPES[cast])

    def _read(self, stack: ExitStack, name: str) -> torch.Tensor:
        path = self.spec.snapshot_dir / self.spec.leaves[name].path
        tensor: torch.Tensor = stack.enter_context(safe_open(path, framework="pt")).get_tensor(name)
        return tensor

    def _evidence(
        self,
        name: str,
        target: str,
        dtype: torch.dtype,
        leaf: str | None,
        served: str | None = None,
    ) -> TensorEvidence:
        """`dtype` is that of what was compared; memory may have another."""
        stored = self.spec.leaves[name]
        return TensorEvidence(
            name=name,
            target=target,
            expected_dtype=stored.dtype if served is None else stored_name(dtype),
            actual_dtype=stored_name(self.held[target].dtype),
            expected=stored.leaf,
            actual=leaf,
            served=served,
        )


def leaf_of(tensor: torch.Tensor) -> str:
    """The leaf of a tensor's present bytes; on CPU without a copy, from a device through one."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return leaf_digest(stored_name(tensor.dtype), tuple(tensor.shape), flat.numpy().data)


def _same(held: torch.Tensor, expected: torch.Tensor) -> bool:
    """Bitwise, so that NaN equals itself and -0 differs from 0."""
    return leaf_of(held) == leaf_of(expected)


def _parse_packed(state: torch.Tensor) -> Any:
    """bitsandbytes packs what is no tensor of a 4-bit weight's state as JSON in bytes."""
    return json.loads(bytes(state.cpu().tolist()))
