"""models.lock as a file, and what its commands say of it without a pool."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import COMMIT, Reply, Service, problem
from tests.unit.test_cli_loads import RESOLUTION
from warmrack import Explanation
from warmrack.lockfile import LockEntry, LockFile, read_lock, write_lock
from warmrack_store.errors import BadRequest, Gated, RepoNotFound
from warmrack_store.facts import FileFact
from warmrack_store.locks import LockedAdapter, LockedLoad
from warmrack_store.records import canonical_json
from warmrack_store.requests import LoadRequest

EXPLAIN, LOCKS = "/api/v1/explain", "/api/v1/locks"
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
    service.on("POST", EXPLAIN, problem(Gated("closed")), problem(RepoNotFound("gone")))
    done = warmrack("lock", "diff", "--lock-file", str(path))
    assert done.code == 1
    first, second = (one.title for one in read_lock(path).entries)
    assert {first, second} == {"org/name", "org/name --precision fp32"}
    assert done.out.splitlines() == [f"{first}: gated: closed", f"{second}: repo-not-found: gone"]


def test_diff_shows_a_change_of_one_entry_although_another_of_the_model_has_none(
    service: Service, warmrack: Warmrack, tmp_path: Path
) -> None:
    path = tmp_path / "models.lock"
    write_lock(path, LockFile.of((entry(), entry(precision="fp32"))))
    same = Explanation.model_validate(RESOLUTION).lock()
    changed, kept = read_lock(path).entries
    write_lock(path, LockFile.of((changed, kept.model_copy(update={"locked": same}))))
    service.on("POST", EXPLAIN, problem(Gated("closed")), Reply(body=RESOLUTION))
    done = warmrack("lock", "diff", "--lock-file", str(path), "--json")
    assert (done.code, done.json) == (1, {"changes": {changed.title: ["gated: closed"]}})


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


def test_entries_of_one_model_are_told_apart_by_their_options(tmp_path: Path) -> None:
    titles = {
        entry().title,
        entry(precision="fp32", max_seq_length=7).title,
        entry(mode="auto", publishers=("a", "b"), network="offline").title,
    }
    assert titles == {
        "org/name",
        "org/name --precision fp32 --max-seq-length 7",
        "org/name --mode auto --publishers a,b",
    }


class Meanwhile(threading.Event):
    """What happens while the service is asked, in the place of a wait for it."""

    def __init__(self, happen: Callable[[], None]) -> None:
        super().__init__()
        self._happen = happen

    def wait(self, timeout: float | None = None) -> bool:
        self._happen()
        return True


def test_what_another_command_locks_meanwhile_stays_in_the_file(
    service: Service, warmrack: Warmrack, tmp_path: Path
) -> None:
    path = tmp_path / "models.lock"
    other = Meanwhile(lambda: write_lock(path, LockFile.of((entry(),))))
    service.on("POST", EXPLAIN, Reply(body=RESOLUTION, hold=other))
    stored = {"digest": "0" * 64, "entries": [], "tenant": "default"}
    stored |= {"created_at": "2026-01-02T03:04:05Z"}
    service.on("POST", LOCKS, Reply(status=201, body=stored))
    done = warmrack("lock", "org/other", "--precision", "fp32", "--lock-file", str(path))
    assert (done.code, done.out.startswith("locked org/other --precision fp32: ")) == (0, True)
    assert [one.request.model for one in read_lock(path).entries] == ["org/name", "org/other"]


@pytest.mark.parametrize(
    ("text", "reason", "hint"),
    [
        ("", "is no lock file: it is empty", "lock anew"),
        ("{", "is no lock file: Invalid JSON", "lock anew"),
        ('{"entries": 3}', "is no lock file: entries", "lock anew"),
        ('{"version": 2, "pins": []}', "was made by a newer warmrack", "Update"),
    ],
)
def test_a_file_that_is_no_lock_is_named_with_what_to_do(
    tmp_path: Path, text: str, reason: str, hint: str
) -> None:
    path = tmp_path / "models.lock"
    path.write_text(text)
    with pytest.raises(BadRequest) as caught:
        read_lock(path)
    assert f"{path} {reason}" in caught.value.message
    assert hint in caught.value.hint


def test_a_folder_in_the_place_of_a_lock_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="Is a directory") as caught:
        read_lock(tmp_path)
    assert f"--lock-file {tmp_path}/models.lock" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--precision", "bf16"), "--precision"),
        (("diff", "--mode", "optimized", "--revision", "x"), "--mode"),
        (("verify", "--max-seq-length", "7"), "--max-seq-length"),
        (("diff", "--unsloth-args", "load_in_4bit=True"), "--unsloth-args"),
        (("--offline",), "--offline"),
        (("diff", "--offline"), "--offline"),
        (("org/name", "--offline"), "--offline"),
        (("org/name", "--locked"), "--locked"),
        (("verify", "--locked"), "--locked"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused_by_name(
    service: Service,
    warmrack: Warmrack,
    tmp_path: Path,
    arguments: tuple[str, ...],
    named: str,
) -> None:
    path = tmp_path / "models.lock"
    write_lock(path, LockFile.of((entry(),)))
    before = path.read_bytes()
    error = warmrack("lock", *arguments, "--lock-file", str(path), "--json").json["error"]
    assert (error["code"], error["message"].startswith(named)) == ("bad-request", True)
    assert (path.read_bytes(), service.seen) == (before, [])
