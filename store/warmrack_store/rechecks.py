"""A receipt checked again: what the disk and the memory hold now, and what no longer agrees."""

from collections.abc import Iterator

from pydantic import Field

from warmrack_store.cache.snapshots import FileState
from warmrack_store.receipts import Check, Receipt
from warmrack_store.records import Record


class DiskQuestion(Record):
    """What a node is asked: to read every file of a resolution again."""

    resolution_id: str


class FileVerdict(Record):
    """One file, read and hashed just now."""

    path: str
    state: FileState
    size: int = 0
    sha256: str | None = None
    """None where it is not the file that it should be."""


class DiskCheck(Record):
    node: str
    files: tuple[FileVerdict, ...]
    read_bytes: int
    seconds: float
    quarantined: tuple[str, ...] = ()
    """Paths of files that were moved aside; the next fetch brings good ones."""


class TensorVerdict(Record):
    """One tensor's leaf as it was at the fetch, and as it is in memory just now."""

    name: str
    expected: str
    actual: str | None
    equal: bool


class MemoryCheck(Record):
    """The whole audit of a live host, done again."""

    resident: str
    device: str
    checks: dict[str, Check]
    tensor_root: str | None
    """None where the audit failed."""
    tensors: tuple[TensorVerdict, ...]
    read_bytes: int
    seconds: float


class Recheck(Record):
    """The answer; `disk` or `memory` is None where the pool no longer holds such a copy."""

    receipt: str
    job: str | None = None
    passed: bool
    disk: DiskCheck | None = None
    memory: MemoryCheck | None = None
    differences: tuple[str, ...] = ()
    consequences: tuple[str, ...] = ()
    error: dict[str, str | bool] | None = Field(None)
    """`integrity`, where it did not pass."""


def list_differences(
    receipt: Receipt, disk: DiskCheck | None, memory: MemoryCheck | None
) -> tuple[str, ...]:
    """What the receipt says and the disk or the memory does not bear out; empty: it holds."""
    found: list[str] = []
    if disk is not None:
        found += _compare_files(receipt, disk)
    if memory is not None:
        found += _compare_memory(receipt, memory)
    return tuple(found)


def _compare_files(receipt: Receipt, disk: DiskCheck) -> Iterator[str]:
    seen = {file.path: file for file in disk.files}
    for file in receipt.files:
        verdict = seen.get(file.path)
        if verdict is None:
            yield f"{file.path} was not looked at by {disk.node}"
        elif verdict.state is not FileState.GOOD:
            yield f"{file.path} is {verdict.state} on {disk.node}"
        elif verdict.sha256 != file.sha256:
            yield f"{file.path} has digest {verdict.sha256}, receipt says {file.sha256}"


def _compare_memory(receipt: Receipt, memory: MemoryCheck) -> Iterator[str]:
    failed = [(name, check) for name, check in sorted(memory.checks.items()) if not check.passed]
    for name, check in failed:
        yield f"{name} in {memory.resident}: {check.detail}"
    if not failed and receipt.tensor_root not in (None, memory.tensor_root):
        yield (
            f"{memory.resident} has tensor root {memory.tensor_root}, "
            f"receipt says {receipt.tensor_root}"
        )
