"""What the tensors of a GGUF file unpack to, by ggml's own library, against what is in memory.

The fetch keeps no leaves of packed tensors that memory could be compared with. So the audit unpacks
the verified file once more with the `gguf` package, which shares no code with the loader's
unpacking, and compares bit by bit.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warmrack_store.resolver.gguf import ROTATED
from warmrack_workers.audit import TensorEvidence
from warmrack_workers.backends.dtypes import stored_name
from warmrack_workers.tensor_proofs import Proofs, leaf_of


def prove_gguf(file: Path, model: Any, held: Mapping[str, torch.Tensor], pool: Executor) -> Proofs:
    """Of every tensor of the file."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    places = _map_names(model, held)
    known = [tensor for tensor in reader.tensors if tensor.name in places]
    tensors = pool.map(lambda one: _prove(one, places[one.name], model.config, held), known)
    return Proofs(
        tensors=tuple(sorted(tensors, key=lambda tensor: tensor.name)),
        backed=frozenset(places[tensor.name] for tensor in known),
        absent=(),
        unplaced=tuple(sorted({tensor.name for tensor in reader.tensors} - places.keys())),
    )


def list_tokens(file: Path) -> frozenset[str]:
    """The vocabulary that the file brings."""
    from gguf import GGUFReader

    field = GGUFReader(file).fields["tokenizer.ggml.tokens"]
    return frozenset(bytes(field.parts[index]).decode("utf-8", "replace") for index in field.data)


def _map_names(model: Any, held: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Name in the file -> name in memory, by the table that the file's converter uses."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kinds = {name: kind for kind, name in MODEL_ARCH_NAMES.items()}
    table = get_tensor_name_map(kinds[model.config.model_type], model.config.num_hidden_layers)
    return dict(_pairs(table, held))


def _pairs(table: Any, held: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    for name in held:
        base, _, ending = name.rpartition(".")
        if (found := table.get_name(base)) is not None:
            yield f"{found}.{ending}", name


def _prove(
    packed: Any, target: str, config: Any, held: Mapping[str, torch.Tensor]
) -> TensorEvidence:
    from gguf.quants import dequantize

    unpacked = dequantize(packed.data, packed.tensor_type).astype(np.float32, copy=False)
    heads = _find_heads(packed.name, config)
    if heads is not None:
        unpacked = _unrotate(unpacked, heads)
    expected = torch.from_numpy(np.require(unpacked, requirements=("C", "W")))
    return TensorEvidence(
        name=packed.name,
        target=target,
        expected_dtype=stored_name(expected.dtype),
        actual_dtype=stored_name(held[target].dtype),
        expected=leaf_of(expected),
        actual=leaf_of(held[target]),
    )


def _find_heads(name: str, config: Any) -> int | None:
    """How many heads a tensor's rows are ordered by; None for one whose rows stand as they are."""
    if config.model_type not in ROTATED:
        return None
    if ".attn_q." in name:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if ".attn_k." in name else None


def _unrotate(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """ggml keeps the two halves of a rotary pair side by side, transformers half a head apart."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
