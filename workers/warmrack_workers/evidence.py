"""What the audit looks at: a snapshot's files on disk and a model's tensors in memory."""

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.resolution import Quantization
from warmrack_workers.audit import Evidence, FileEvidence
from warmrack_workers.backends import LoadedModel
from warmrack_workers.backends.bnb import read_declaration
from warmrack_workers.backends.gguf import get_gguf_file
from warmrack_workers.checkpoint_map import map_checkpoint
from warmrack_workers.gguf_proofs import list_tokens, prove_gguf
from warmrack_workers.host_spec import HostSpec
from warmrack_workers.quantized_layers import (
    QuantizedLayers,
    drop_formats,
    find_layers,
    list_differences,
    list_linear,
)
from warmrack_workers.tensor_proofs import Proofs, Prover

_CHUNK_BYTES = 1 << 20
_LIBRARIES = ("torch", "transformers", "safetensors", "tokenizers", "warmrack")
_BACKEND_LIBRARIES = {"bnb": ("bitsandbytes",), "gguf": ("gguf",)}
_OUTSIDE_CONFIG = frozenset({"dtype", "torch_dtype", "_name_or_path", "transformers_version"})
"""Set by every load: the dtype is checked tensor by tensor, the others say where and with what."""


def gather_evidence(spec: HostSpec, loaded: LoadedModel) -> Evidence:
    """Reads small files from disk, every tensor from memory; hashes on the host's threads."""
    started = time.perf_counter()
    model, held = loaded.model, loaded.model.state_dict()
    layers = find_layers(model, spec.resolution.quantization)
    with ThreadPoolExecutor(spec.threads, thread_name_prefix="audit") as pool:
        files = pool.submit(inspect_files, spec)
        added = pool.submit(_list_added, spec, loaded.tokenizer)
        proofs = _prove(spec, model, held, layers, pool)
        tied = list_tied(held, proofs.backed)
        unbacked = drop_formats(held.keys() - proofs.backed - set(tied), proofs.backed)
        return Evidence(
            resolution=spec.resolution,
            snapshot_name=spec.snapshot_dir.name,
            files=files.result(),
            class_name=type(model).__name__,
            quantized_modules=tuple(sorted(layers.found)),
            quantization_differences=list_differences(spec, layers, proofs.backed),
            unquantized_layers=tuple(list_linear(model)) if layers.found else (),
            tensors=proofs.tensors,
            unbacked=tuple(sorted(unbacked)),
            tied=tied,
            ignored=proofs.absent,
            missing=loaded.missing,
            unexpected=(*loaded.unexpected, *proofs.unplaced),
            mismatched=loaded.mismatched,
            added_tokens=added.result(),
            config_changes=_list_changes(spec, model.config),
            audit_policy=spec.audit_policy,
            audit_seconds=time.perf_counter() - started,
            versions={name: version(name) for name in _list_libraries(spec)},
        )


def _prove(
    spec: HostSpec,
    model: Any,
    held: Mapping[str, torch.Tensor],
    layers: QuantizedLayers,
    pool: Executor,
) -> Proofs:
    if spec.backend == "gguf":
        return prove_gguf(spec.snapshot_dir / get_gguf_file(spec), model, held, pool)
    places = map_checkpoint(model, spec.leaves, held)
    prover = Prover(spec=spec, model=model, held=held, places=places, quantized=layers)
    return prover.prove(pool)


def _list_added(spec: HostSpec, tokenizer: Any | None) -> tuple[str, ...]:
    if spec.backend != "gguf":
        return list_added_tokens(spec.snapshot_dir, tokenizer)
    tokens = list_tokens(spec.snapshot_dir / get_gguf_file(spec))
    return tuple(sorted(tokenizer.get_added_vocab().keys() - tokens)) if tokenizer else ()


def _list_changes(spec: HostSpec, config: Any) -> tuple[str, ...]:
    quantization = spec.resolution.quantization
    if spec.backend != "gguf":
        return list_config_changes(spec.snapshot_dir, config, quantization)
    path = get_gguf_file(spec)
    fresh = AutoConfig.from_pretrained(
        str(spec.snapshot_dir), gguf_file=path, local_files_only=True, trust_remote_code=False
    ).to_dict()
    return tuple(_list_differences("", fresh, config.to_dict()))


def _list_libraries(spec: HostSpec) -> tuple[str, ...]:
    return (*_LIBRARIES, *_BACKEND_LIBRARIES.get(spec.backend, ()))


def inspect_files(spec: HostSpec) -> tuple[FileEvidence, ...]:
    """Every file of the resolution, an adapter's too: weights are trusted while their inode, size
    and mtime stand still (their values are checked in memory), everything else is read again."""
    verified = {file.path: file for file in spec.files}
    adapter = spec.adapter_spec()
    own = tuple(
        _inspect_file(
            spec.snapshot_dir / file.path,
            file.path,
            file.digest,
            verified.get(file.path) if file.path in spec.resolution.weights else None,
        )
        for file in spec.resolution.files
    )
    return own if adapter is None else (*own, *inspect_files(adapter))


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


def list_tied(held: Mapping[str, torch.Tensor], backed: Collection[str]) -> tuple[str, ...]:
    """Tensors that are no checked one but lie in the same memory with the same form."""
    spans = {_span(held[name]) for name in backed if name in held}
    return tuple(
        sorted(name for name in held.keys() - set(backed) if _span(held[name]) in spans),
    )


def _span(tensor: torch.Tensor) -> tuple[int, torch.dtype, torch.Size, tuple[int, ...]]:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def list_config_changes(
    snapshot_dir: Path, config: Any, quantization: Quantization | None = None
) -> tuple[str, ...]:
    """Fields that differ from a fresh parse of the stored file by the same library.

    Of a quantized load the declaration is compared as the library spells it: the stored one, or
    the one that the resolution makes.
    """
    fresh = AutoConfig.from_pretrained(
        str(snapshot_dir), local_files_only=True, trust_remote_code=False
    ).to_dict()
    if quantization is not None:
        fresh["quantization_config"] = read_declaration(
            fresh.get("quantization_config"), quantization
        )
    return tuple(_list_differences("", fresh, config.to_dict()))


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
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    _, found, rest = text.partition('"added_tokens":')
    if not found:
        return set()
    entries, _ = json.JSONDecoder().raw_decode(rest.lstrip())
    return {entry["content"] for entry in entries if isinstance(entry, dict)}
