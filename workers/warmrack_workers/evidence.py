"""What the audit looks at: a snapshot's files on disk and a model's tensors in memory."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.tensors import leaf_digest
from warmrack_workers.audit import Evidence, FileEvidence, TensorEvidence
from warmrack_workers.backends import LoadedModel
from warmrack_workers.backends.dtypes import stored_name
from warmrack_workers.checkpoint_map import CheckpointMap, Merge, map_checkpoint
from warmrack_workers.host_spec import ExpectedLeaf, HostSpec

_CHUNK_BYTES = 1 << 20
_LIBRARIES = ("torch", "transformers", "safetensors", "tokenizers", "warmrack")
_OUTSIDE_CONFIG = frozenset({"dtype", "torch_dtype", "_name_or_path", "transformers_version"})
"""Set by every load: the dtype is checked tensor by tensor, the others say where and with what."""
_QUANTIZERS = ("bitsandbytes", "torchao", "auto_gptq", "awq", "hqq", "quanto", "optimum")


def gather_evidence(spec: HostSpec, loaded: LoadedModel) -> Evidence:
    """Reads small files from disk, every tensor from memory; hashes on the host's threads."""
    started = time.perf_counter()
    held = loaded.model.state_dict()
    places = map_checkpoint(loaded.model, spec.leaves, held)
    with ThreadPoolExecutor(spec.threads, thread_name_prefix="audit") as pool:
        files = pool.submit(inspect_files, spec)
        added = pool.submit(list_added_tokens, spec.snapshot_dir, loaded.tokenizer)
        tensors = list(_inspect_renamed(spec, held, places, pool))
        derived: set[str] = set()
        for merge in places.merges:
            tensors += _inspect_merge(spec, loaded.model, held, merge, derived)
        changes = list_config_changes(spec.snapshot_dir, loaded.model.config)
        backed = {*places.renamed.values(), *derived}
        tied = list_tied(held, backed)
        return Evidence(
            resolution=spec.resolution,
            snapshot_name=spec.snapshot_dir.name,
            files=files.result(),
            class_name=type(loaded.model).__name__,
            config_quantized=getattr(loaded.model.config, "quantization_config", None) is not None,
            quantized_modules=list_quantized_modules(loaded.model),
            tensors=tuple(sorted(tensors, key=lambda tensor: tensor.name)),
            unbacked=tuple(sorted(held.keys() - backed - set(tied))),
            tied=tied,
            ignored=places.absent,
            missing=loaded.missing,
            unexpected=loaded.unexpected,
            mismatched=loaded.mismatched,
            added_tokens=added.result(),
            config_changes=changes,
            audit_policy=spec.audit_policy,
            audit_seconds=time.perf_counter() - started,
            versions={name: version(name) for name in _LIBRARIES},
        )


def inspect_files(spec: HostSpec) -> tuple[FileEvidence, ...]:
    """Every file of the resolution: weights are trusted while their inode, size and mtime stand
    still (their values are checked in memory), everything else is read again."""
    verified = {file.path: file for file in spec.files}
    return tuple(
        _inspect_file(
            spec.snapshot_dir / file.path,
            file.path,
            file.digest,
            verified.get(file.path) if file.path in spec.resolution.weights else None,
        )
        for file in spec.resolution.files
    )


def _inspect_file(
    location: Path, path: str, expected: str, trusted: VerifiedFile | None
) -> FileEvidence:
    try:
        if trusted and trusted.is_unchanged(location):
            return FileEvidence(
                path=path,
                size=trusted.size_bytes,
                sha256=trusted.sha256,
                expected=expected,
                actual=trusted.digest,
                read=False,
            )
        stat = location.stat()
        sha256, git_sha1 = digest_file(location)
    except FileNotFoundError:
        return FileEvidence(path=path, size=0, sha256="", expected=expected, actual=None, read=True)
    return FileEvidence(
        path=path,
        size=stat.st_size,
        sha256=sha256,
        expected=expected,
        actual=sha256 if len(expected) == len(sha256) else git_sha1,
        read=True,
    )


def digest_file(path: Path) -> tuple[str, str]:
    """(sha256, git's blob sha1) of a file, in one pass."""
    with path.open("rb") as file:
        sha256 = hashlib.sha256()
        git_sha1 = hashlib.sha1(
            b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False
        )
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            git_sha1.update(chunk)
    return sha256.hexdigest(), git_sha1.hexdigest()


def leaf_of(tensor: torch.Tensor) -> str:
    """The leaf of a tensor's present bytes; on CPU without a copy, from a device through one."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return leaf_digest(stored_name(tensor.dtype), tuple(tensor.shape), flat.numpy().data)


def _inspect_renamed(
    spec: HostSpec, held: Mapping[str, torch.Tensor], places: CheckpointMap, pool: Executor
) -> Iterator[TensorEvidence]:
    leaves = pool.map(lambda target: leaf_of(held[target]), places.renamed.values())
    for (name, target), leaf in zip(places.renamed.items(), leaves, strict=True):
        yield _evidence(name, target, spec.leaves[name], held[target], leaf)


def _inspect_merge(
    spec: HostSpec,
    model: Any,
    held: Mapping[str, torch.Tensor],
    merge: Merge,
    derived_names: set[str],
) -> Iterator[TensorEvidence]:
    """The parts have their leaves in the file, and what they give is what is in memory.

    Adds the names in memory that are accounted for to `derived_names`.
    """
    with ExitStack() as stack:
        parts = {
            name: _read_tensor(stack, spec.snapshot_dir / spec.leaves[name].path, name)
            for name, _ in merge.sources
        }
        derived = merge.derive(model, parts)
        equal = all(name in held and _same(held[name], t) for name, t in derived.items())
        derived_names.update(derived)
        for name, part in parts.items():
            leaf = leaf_of(part) if equal else None
            yield _evidence(name, merge.target, spec.leaves[name], held[merge.target], leaf)


def _read_tensor(stack: ExitStack, path: Path, name: str) -> torch.Tensor:
    tensor: torch.Tensor = stack.enter_context(safe_open(path, framework="pt")).get_tensor(name)
    return tensor


def _same(held: torch.Tensor, derived: torch.Tensor) -> bool:
    """Bitwise, so that NaN equals itself and -0 differs from 0."""
    return leaf_of(held) == leaf_of(derived)


def _evidence(
    name: str, target: str, expected: ExpectedLeaf, held: torch.Tensor, leaf: str | None
) -> TensorEvidence:
    return TensorEvidence(
        name=name,
        target=target,
        expected_dtype=expected.dtype,
        actual_dtype=stored_name(held.dtype),
        expected=expected.leaf,
        actual=leaf,
    )


def list_tied(held: Mapping[str, torch.Tensor], backed: set[str]) -> tuple[str, ...]:
    """Tensors that are no checked one but lie in the same memory with the same form."""
    spans = {_span(held[name]) for name in backed if name in held}
    return tuple(
        sorted(name for name in held.keys() - backed if _span(held[name]) in spans),
    )


def _span(tensor: torch.Tensor) -> tuple[int, torch.dtype, torch.Size, tuple[int, ...]]:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def list_quantized_modules(model: Any) -> tuple[str, ...]:
    """Modules that come from a quantization library."""
    return tuple(
        f"{name} is {type(module).__module__}.{type(module).__qualname__}"
        for name, module in model.named_modules()
        if type(module).__module__.partition(".")[0] in _QUANTIZERS
    )


def list_config_changes(snapshot_dir: Path, config: Any) -> tuple[str, ...]:
    """Fields that differ from a fresh parse of the stored file by the same library."""
    fresh = AutoConfig.from_pretrained(
        str(snapshot_dir), local_files_only=True, trust_remote_code=False
    )
    return tuple(_list_differences("", fresh.to_dict(), config.to_dict()))


def _list_differences(where: str, stored: object, used: object) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(used, dict):
        for key in sorted((stored.keys() | used.keys()) - _OUTSIDE_CONFIG, key=str):
            yield from _list_differences(
                f"{where}.{key}" if where else str(key), stored.get(key), used.get(key)
            )
    elif stored != used:
        yield f"{where} is {used!r}, stored as {stored!r}"


def list_added_tokens(snapshot_dir: Path, tokenizer: Any | None) -> tuple[str, ...]:
    """Tokens that neither the stored files name nor a fresh parse of them has.

    The names come first: they cost milliseconds, a parse of a 50,000 token vocabulary 0.1 s.
    """
    if tokenizer is None:
        return ()
    added = tokenizer.get_added_vocab().keys() - _list_named_tokens(snapshot_dir)
    if not added:
        return ()
    fresh = AutoTokenizer.from_pretrained(
        str(snapshot_dir), local_files_only=True, trust_remote_code=False
    )
    return tuple(sorted(added - fresh.get_added_vocab().keys()))


def _list_named_tokens(snapshot_dir: Path) -> set[str]:
    """The contents of tokenizer.json's `added_tokens`, which stand before its large vocabulary."""
    path = snapshot_dir / "tokenizer.json"
    text = path.read_text() if path.exists() else ""
    _, found, rest = text.partition('"added_tokens":')
    if not found:
        return set()
    entries, _ = json.JSONDecoder().raw_decode(rest.lstrip())
    return {entry["content"] for entry in entries if isinstance(entry, dict)}
