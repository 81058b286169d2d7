"""What a receipt says against what was read again; and what it says before anything was read."""

from typing import Any

import pytest

from tests.unit.repositories import COMMIT
from warmrack_store.cache.snapshots import FileState
from warmrack_store.receipts import Check, Level, Receipt, Served, ServedFile
from warmrack_store.rechecks import DiskCheck, FileVerdict, MemoryCheck, list_differences

RECEIPT = Receipt(
    level=Level.LOADED,
    asked="org/name",
    served=Served(repository="org/name", commit=COMMIT, precision="bf16"),
    checks={},
    files=(
        ServedFile(path="config.json", size=1, sha256="a" * 64),
        ServedFile(path="model.safetensors", size=2, sha256="b" * 64),
    ),
    tensor_root="c" * 64,
    identical=True,
)
GOOD = tuple(
    FileVerdict(path=file.path, state=FileState.GOOD, size=file.size, sha256=file.sha256)
    for file in RECEIPT.files
)


def disk(*files: FileVerdict) -> DiskCheck:
    return DiskCheck(node="n0", files=files, read_bytes=3, seconds=0.1)


def memory(**changes: Any) -> MemoryCheck:
    fields: dict[str, Any] = {
        "resident": "res_1",
        "device": "cpu:0",
        "checks": {"E6": Check(passed=True, detail="")},
        "tensor_root": "c" * 64,
        "tensors": (),
        "read_bytes": 2,
        "seconds": 0.1,
    }
    return MemoryCheck(**fields | changes)


def test_good_files_and_the_same_root_agree() -> None:
    assert list_differences(RECEIPT, disk(*GOOD), memory()) == ()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (GOOD[:1], "model.safetensors was not looked at"),
        ((GOOD[0], GOOD[1].model_copy(update={"sha256": "d" * 64})), "receipt says b"),
        (
            (GOOD[0], FileVerdict(path="model.safetensors", state=FileState.CORRUPT)),
            "model.safetensors is corrupt on n0",
        ),
        (
            (FileVerdict(path="config.json", state=FileState.MISSING), GOOD[1]),
            "config.json is missing on n0",
        ),
    ],
)
def test_file_that_is_not_the_receipts_is_named(files: tuple[FileVerdict, ...], said: str) -> None:
    (difference,) = list_differences(RECEIPT, disk(*files), memory())
    assert said in difference


def test_failed_check_in_memory_is_named() -> None:
    failed = memory(checks={"E6": Check(passed=False, detail="w is 1")}, tensor_root=None)
    assert list_differences(RECEIPT, disk(*GOOD), failed) == ("E6 in res_1: w is 1",)


def test_another_root_in_memory_is_a_difference_although_its_own_audit_passed() -> None:
    (difference,) = list_differences(RECEIPT, None, memory(tensor_root="d" * 64))
    assert "tensor root" in difference


def test_receipt_of_files_alone_says_nothing_of_a_root() -> None:
    files_only = RECEIPT.model_copy(update={"level": Level.FILES, "tensor_root": None})
    assert list_differences(files_only, disk(*GOOD), memory()) == ()


def test_fingerprint_is_the_roots_first_16_characters() -> None:
    assert RECEIPT.fingerprint == "c" * 16
    assert RECEIPT.model_copy(update={"tensor_root": None}).fingerprint is None
