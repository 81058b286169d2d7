"""models.lock as a file, and what its commands say of it without a pool."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import COMMIT, Service, problem
from warmrack.lockfile import LockEntry, LockFile, read_lock, write_lock
from warmrack_store.errors import Gated, RepoNotFound
from warmrack_store.facts import FileFact
from warmrack_store.locks import LockedAdapter, LockedLoad
from warmrack_store.records import canonical_json
from warmrack_store.requests import LoadRequest

EMPTY_BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
"""git's sha1 of a file without bytes."""


def empty(path: str) -> FileFact:
    return FileFact(path=path, size=0, git_sha1=EMPTY_BLOB)


def entry(path: str = "config.json", *, adapter: bool = False, **fields: Any) -> LockEntry:
    held = LockedAdapter(
        repository="org/lora", commit="b" * 40, files=(empty("adapter_config.json"),)
    )
    return LockEntry(
        request=LoadRequest(model="org/name", **fields),
        locked=LockedLoad(
            asked_commit=COMMIT,
            repository="org/name",
            commit=COMMIT,
            substitution="none",
            precision="bf16",
            files=(empty(path),),
            adapter=held if adapter else None,
            catalog_version="unsloth-2026.10.9",
        ),
    )


def test_the_digest_is_of_the_entries_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    write_lock(path, LockFile.of((entry(), entry(precision="fp32"))))
    written = json.loads(path.read_text(encoding="utf-8"))
    canonical = canonical_json(written["entries"]).encode()
    assert written["digest"] == hashlib.sha256(canonical).hexdigest()
    assert len(read_lock(path).entries) == 2


def test_a_file_is_written_whole_whatever_its_names_and_leaves_nothing_beside(
    tmp_path: Path,
) -> None:
    path = tmp_path / "models.lock"
    write_lock(path, LockFile.of((entry("größe.json"),)))
    assert read_lock(path).entries[0].locked.files[0].path == "größe.json"
    assert [one.name for one in tmp_path.iterdir()] == ["models.lock"]


def test_diff_tells_of_every_entry_of_a_model_that_is_locked_twice(
    service: Service, warmrack: Warmrack, tmp_path: Path
) -> None:
    path = tmp_path / "models.lock"
    write_lock(path, LockFile.of((entry(), entry(precision="fp32"))))
    service.on("POST", "/api/v1/explain", problem(Gated("closed")), problem(RepoNotFound("gone")))
    done = warmrack("lock", "diff", "--lock-file", str(path))
    assert done.code == 1
    assert done.out.splitlines() == ["org/name: gated: closed", "org/name: repo-not-found: gone"]


def test_verify_offline_looks_for_an_adapters_files_too(
    warmrack: Warmrack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMRACK_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "models.lock"
    write_lock(path, LockFile.of((entry(adapter=True),)))
    base = tmp_path / "cache" / "models--org--name" / "snapshots" / COMMIT
    lora = tmp_path / "cache" / "models--org--lora" / "snapshots" / ("b" * 40)
    for folder in (base, lora):
        folder.mkdir(parents=True)
    (base / "config.json").touch()
    verify = ("lock", "verify", "--offline", "--lock-file", str(path), "--json")
    found = warmrack(*verify).json["error"]
    assert (found["code"], "org--lora" in found["message"]) == ("offline-miss", True)
    (lora / "adapter_config.json").touch()
    assert warmrack(*verify).json == {"verified": ["org/name"]}
    (lora / "adapter_config.json").write_text("{}")
    assert warmrack(*verify).json["error"]["code"] == "integrity"
