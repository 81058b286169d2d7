"""The verdict on a loaded model: facts about files, tensors and config in, a receipt out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from warmrack_store.errors import Integrity, NotExact, Proof
from warmrack_store.receipts import Check, Level, Receipt, ServedFile, check_name, name_served
from warmrack_store.resolution import QuantizationSource, Resolution
from warmrack_store.tensors import root_digest

_SHOWN = 3
"""Differences that a message names; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvidence:
    path: str
    size: int
    sha256: str
    expected: str
    """The Hub's digest."""
    actual: str | None
    """None: the file is not there."""
    read: bool
    """False: trusted, because inode, size and mtime are those of its verification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEvidence:
    name: str
    """In the checkpoint."""
    target: str
    """In memory."""
    expected_dtype: str
    """As stored, or as the load should make it."""
    actual_dtype: str
    expected: str
    """The leaf kept since the fetch."""
    actual: str | None
    """The leaf of what is in memory, or of the stored tensor that it was made of; None where what
    is in memory is not what that gives."""
    served: str | None = None
    """Where the load made another tensor of it: the digest of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the verdict depends on."""

    resolution: Resolution
    snapshot_name: str
    files: tuple[FileEvidence, ...]
    class_name: str
    quantized_modules: tuple[str, ...]
    quantization_differences: tuple[str, ...]
    """Modules that are quantized, or not, other than the resolution says."""
    unquantized_layers: tuple[str, ...]
    """Linear layers of a quantized model that are not."""
    tensors: tuple[TensorEvidence, ...]
    unbacked: tuple[str, ...]
    """Tensors in memory that no tensor of the checkpoint accounts for."""
    tied: tuple[str, ...]
    """Tensors in memory that share the storage of a checked one."""
    ignored: tuple[str, ...]
    """Checkpoint tensors that the class declares it does not use."""
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    added_tokens: tuple[str, ...]
    config_changes: tuple[str, ...]
    audit_policy: str
    audit_seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)
    adapter_tensors: int = 0
    """How many of the tensors are an adapter's."""


def judge(evidence: Evidence) -> Receipt:
    """The receipt, whether the checks passed or not."""
    resolution = evidence.resolution
    checks = {
        "E1": _check_name(evidence),
        "E2": check_files(evidence.files),
        "E3": _check_class(evidence),
        "E4": _check_quantization(evidence),
        "E5": _check_dtypes(evidence),
        "E6": _check_values(evidence),
        "E7": _check_tokenizer(evidence),
        "E8": _verdict("config as stored", evidence.config_changes),
    }
    loaded = all(check.passed for check in checks.values())
    return Receipt(
        level=Level.LOADED if loaded else Level.FILES if checks["E2"].passed else Level.NAME,
        asked=resolution.asked,
        served=name_served(resolution),
        checks=checks,
        files=tuple(
            ServedFile(path=file.path, size=file.size, sha256=file.sha256)
            for file in evidence.files
        ),
        tensor_root=_compute_root(evidence) if loaded else None,
        tensors=len(evidence.tensors),
        identical=loaded and resolution.same_values,
        audit_policy=evidence.audit_policy,
        audit_seconds=evidence.audit_seconds,
        versions=dict(evidence.versions),
    )


def find_failure(evidence: Evidence, receipt: Receipt) -> Proof | None:
    """The error that keeps this model from being served; None for a passed audit.

    Integrity where bytes are not the pinned ones, which a new copy would mend; NotExact where good
    bytes became another model. What is about bytes comes first in the message, since a changed
    file also upsets the checks that depend on it.
    """
    failed = sorted(receipt.failed, key=lambda name: (name not in ("E2", "E6"), name))
    if not failed:
        return None
    changed = "E2" in failed or bool(list_changed_tensors(evidence.tensors))
    kind = Integrity if changed else NotExact
    details = "; ".join(f"{name}: {receipt.checks[name].detail}" for name in failed)
    return kind(f"{receipt.asked} at {receipt.served.commit}: {details}")


def check_files(files: Iterable[FileEvidence]) -> Check:
    """E2; asked once before the load too, so that changed bytes are never even parsed."""
    files = tuple(files)
    wrong = [
        f"{file.path} is missing, expected {file.expected}"
        if file.actual is None
        else f"{file.path} has digest {file.actual}, expected {file.expected}"
        for file in files
        if file.actual != file.expected
    ]
    read = sum(file.read for file in files)
    return _verdict(f"{len(files)} files, {read} read again, the rest unchanged on disk", wrong)


def list_changed_tensors(tensors: Iterable[TensorEvidence]) -> list[TensorEvidence]:
    """Those whose bytes are others. A cast one is no matter of bytes; E5 refuses it."""
    return [
        tensor
        for tensor in tensors
        if tensor.actual not in (None, tensor.expected)
        and tensor.actual_dtype == tensor.expected_dtype
    ]


def _check_name(evidence: Evidence) -> Check:
    resolution = evidence.resolution
    named = check_name(resolution)
    if named.passed and evidence.snapshot_name != resolution.commit:
        detail = f"snapshot {evidence.snapshot_name}, expected {resolution.commit}"
        return Check(passed=False, detail=detail)
    return named


def _check_class(evidence: Evidence) -> Check:
    expected = evidence.resolution.architecture
    wrong = _changed(evidence, {"config.json"})
    if evidence.class_name != expected:
        wrong.append(f"class {evidence.class_name}, expected {expected}")
    kept = any(file.path == "config.json" for file in evidence.files)
    source = "config.json as at the Hub" if kept else "config from the weights' header"
    return _verdict(f"{source}, class {evidence.class_name}", wrong)


def _compute_root(evidence: Evidence) -> str:
    """Over what is in memory, so that a cast or a quantization is not taken for the original."""
    return root_digest({one.name: one.served or one.expected for one in evidence.tensors})


def _check_quantization(evidence: Evidence) -> Check:
    quantization = evidence.resolution.quantization
    if quantization is None:
        return _verdict("no quantized module", evidence.quantization_differences)
    if quantization.method.startswith("gguf:"):
        detail = f"{quantization.method} as stored, unpacked into {quantization.compute_dtype}"
        return _verdict(detail, evidence.quantization_differences)
    how = "as stored" if quantization.source is QuantizationSource.STORED else "at the load"
    detail = f"{len(evidence.quantized_modules)} layers {quantization.method}, quantized {how}"
    if left := evidence.unquantized_layers:
        rest = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        detail += f"; linear and not quantized: {', '.join(left[:_SHOWN])}{rest}"
    return _verdict(detail, evidence.quantization_differences)


def _check_dtypes(evidence: Evidence) -> Check:
    wrong = [
        f"{tensor.target} is {tensor.actual_dtype}, stored as {tensor.expected_dtype}"
        if tensor.served is None
        else f"{tensor.target} is {tensor.actual_dtype}, should be {tensor.expected_dtype}"
        for tensor in evidence.tensors
        if tensor.actual_dtype != tensor.expected_dtype
    ]
    cast = evidence.resolution.cast
    how = f"in {cast} as asked, or as the class keeps them" if cast else "in their stored dtype"
    return _verdict(f"{len(evidence.tensors)} tensors {how}", wrong)


def _check_values(evidence: Evidence) -> Check:
    wrong = [
        f"{tensor.name} is {tensor.actual}, expected {tensor.expected}"
        for tensor in list_changed_tensors(evidence.tensors)
    ]
    wrong += [
        f"{tensor.target} is not what {tensor.name} and its other parts give"
        for tensor in evidence.tensors
        if tensor.actual is None and tensor.actual_dtype == tensor.expected_dtype
    ]
    wrong += [f"{name} comes from no file" for name in evidence.unbacked]
    wrong += [f"{name} is missing" for name in evidence.missing]
    wrong += [f"{name} is unexpected" for name in evidence.unexpected]
    wrong += [f"{name} has another shape" for name in evidence.mismatched]
    return _verdict(_describe_values(evidence), wrong)


def _describe_values(evidence: Evidence) -> str:
    made = sum(tensor.served is not None for tensor in evidence.tensors)
    quantization = evidence.resolution.quantization
    detail = f"{len(evidence.tensors)} leaves equal"
    if quantization is not None and quantization.method.startswith("gguf:"):
        detail += ", of the file unpacked once more by ggml's own library"
    if evidence.adapter_tensors:
        detail += f", {evidence.adapter_tensors} of them the adapter's"
    if made:
        detail += f", of which {made} were made anew from the stored tensors and compared"
    if evidence.tied:
        detail += f", tied: {', '.join(evidence.tied)}"
    if evidence.ignored:
        detail += f", not used by the class: {', '.join(evidence.ignored)}"
    return detail


def _check_tokenizer(evidence: Evidence) -> Check:
    paths = {*evidence.resolution.tokenizer_files, "generation_config.json"}
    wrong = _changed(evidence, paths)
    wrong += [f"token {token!r} was added" for token in evidence.added_tokens]
    return _verdict("tokenizer and generation files as at the Hub, no token added", wrong)


def _changed(evidence: Evidence, paths: set[str]) -> list[str]:
    return [
        f"{file.path} is not the Hub's"
        for file in evidence.files
        if file.path in paths and file.actual != file.expected
    ]


def _verdict(detail: str, wrong: Iterable[str]) -> Check:
    """Passed with `detail`, or failed with the first differences."""
    wrong = list(wrong)
    if not wrong:
        return Check(passed=True, detail=detail)
    rest = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return Check(passed=False, detail="; ".join(wrong[:_SHOWN]) + rest)
