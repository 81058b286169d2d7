"""The audit of a model that is warm already: the same evidence and verdict as after its load."""

import time
from collections.abc import Mapping, Sequence

from warmrack_store.errors import Integrity, Proof
from warmrack_store.receipts import Check
from warmrack_store.rechecks import MemoryCheck, TensorVerdict
from warmrack_workers.adapters import gather_all
from warmrack_workers.audit import TensorEvidence, check_files, find_failure, judge
from warmrack_workers.backends import LoadedModel
from warmrack_workers.evidence import inspect_files
from warmrack_workers.host_spec import HostSpec
from warmrack_workers.view import viewed


def audit_again(
    spec: HostSpec, loaded: LoadedModel, weights_bytes: int
) -> tuple[MemoryCheck, Proof | None]:
    """What is in memory now, and the error that keeps it from being served any longer.

    Changed files fail first, so that they are never parsed; then no tensor is looked at.
    """
    started = time.perf_counter()
    with viewed(spec) as seen:
        found = check_files(inspect_files(seen))
        if not found.passed:
            failure = Integrity(f"{spec.model}: E2: {found.detail}")
            return _report(spec, {"E2": found}, None, (), 0, started), failure
        evidence = gather_all(seen, loaded)
    receipt = judge(evidence)
    report = _report(
        spec, receipt.checks, receipt.tensor_root, evidence.tensors, weights_bytes, started
    )
    return report, find_failure(evidence, receipt)


def _report(
    spec: HostSpec,
    checks: Mapping[str, Check],
    root: str | None,
    tensors: Sequence[TensorEvidence],
    read_bytes: int,
    started: float,
) -> MemoryCheck:
    return MemoryCheck(
        resident=spec.resident_id,
        device=spec.device,
        checks=dict(checks),
        tensor_root=root,
        tensors=tuple(
            TensorVerdict(
                name=tensor.name,
                expected=tensor.expected,
                actual=tensor.actual,
                equal=tensor.actual == tensor.expected,
            )
            for tensor in tensors
        ),
        read_bytes=read_bytes,
        seconds=time.perf_counter() - started,
    )
