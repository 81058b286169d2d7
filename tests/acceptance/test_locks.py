"""models.lock: made on one pool, honoured on another, and noticed when the Hub moves."""

import json
from pathlib import Path

import pytest

import warmrack
from tests.acceptance.conftest import BERT, LLAMA
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Served, running_hub
from tests.hub.models import get_model_folder

MODEL = "acme/moving"


@pytest.fixture
def lock_file(pool: Stack, tmp_path: Path) -> Path:
    path = tmp_path / "models.lock"
    code, _ = pool.run_json("lock", LLAMA, "--lock-file", str(path))
    assert code == 0
    return path


def test_a_locked_load_is_served_as_the_file_has_it(pool: Stack, lock_file: Path) -> None:
    code, job = pool.run_json("load", LLAMA, "--locked", "--lock-file", str(lock_file))
    assert code == 0
    assert job["resolution"]["commit"] == pool.hub.get_commit(LLAMA).sha
    assert job["lock"] == json.loads(lock_file.read_text())["digest"]


def test_a_lock_is_kept_by_the_service_and_a_job_may_name_it(pool: Stack, lock_file: Path) -> None:
    digest = json.loads(lock_file.read_text())["digest"]
    with pool.client() as client:
        kept = client.lock(digest)
        assert (kept.digest, kept.tenant) == (digest, "default")
        assert [entry["request"]["model"] for entry in kept.entries] == [LLAMA]
        job = client.load(LLAMA, lock="require", lock_digest=digest)
        done = client.wait(job.id, timeout_seconds=60)
    assert done.lock == digest
    assert done.resolution is not None
    assert done.resolution.commit == kept.entries[0]["locked"]["commit"]


def test_a_job_that_brings_only_an_entry_names_a_lock_of_it(pool: Stack, lock_file: Path) -> None:
    (entry,) = json.loads(lock_file.read_text())["entries"]
    with pool.client() as client:
        job = client.prefetch(LLAMA, lock="require", locked=entry["locked"])
        assert job.lock is not None
        (kept,) = client.lock(job.lock).entries
    assert kept["locked"]["commit"] == entry["locked"]["commit"]
    assert job.lock == json.loads(lock_file.read_text())["digest"], "the same entry alone"


def test_a_named_lock_that_is_unknown_or_holds_another_model_is_refused(
    pool: Stack, lock_file: Path
) -> None:
    digest = json.loads(lock_file.read_text())["digest"]
    with pool.client() as client:
        with pytest.raises(warmrack.errors.NotFound, match="no lock"):
            client.load(LLAMA, lock="require", lock_digest="0" * 64)
        with pytest.raises(warmrack.errors.NotFound, match="no lock"):
            client.lock("0" * 64)
        other = client.load(BERT, lock="require", lock_digest=digest)
        with pytest.raises(warmrack.errors.LockMismatch):
            client.wait(other.id, timeout_seconds=60)


def test_a_model_that_is_not_in_the_file_is_a_mismatch(pool: Stack, lock_file: Path) -> None:
    code, answer = pool.run_json("load", BERT, "--locked", "--lock-file", str(lock_file))
    assert (code, answer["error"]["code"]) == (3, "lock-mismatch")


def test_a_file_edited_by_hand_is_refused(pool: Stack, lock_file: Path) -> None:
    text = lock_file.read_text()
    lock_file.write_text(text.replace(pool.hub.get_commit(LLAMA).sha, "0" * 40))
    code, answer = pool.run_json("load", LLAMA, "--locked", "--lock-file", str(lock_file))
    assert (code, answer["error"]["code"]) == (5, "integrity")


def test_verify_offline_reads_the_cache_and_names_a_missing_or_changed_file(
    pool: Stack, lock_file: Path
) -> None:
    verify = ("lock", "verify", "--offline", "--lock-file", str(lock_file))
    with pool.client() as client:
        client.wait(client.prefetch(LLAMA, nodes=["node-0"]).id, timeout_seconds=60)
    assert pool.run_json(*verify)[0] == 0
    (snapshot,) = (pool.cache_dir / "models--acme--tiny-llama" / "snapshots").iterdir()
    config = snapshot / "config.json"
    target, kept = config.readlink(), config.read_bytes()
    config.unlink()
    try:
        assert pool.run_json(*verify)[1]["error"]["code"] == "offline-miss"
        config.write_bytes(kept + b" ")
        assert pool.run_json(*verify)[1]["error"]["code"] == "integrity"
    finally:
        config.unlink()
        config.symlink_to(target)


@pytest.mark.slow
def test_a_lock_holds_on_another_pool_after_the_branch_has_moved(tmp_path: Path) -> None:
    folder = get_model_folder("tiny_llama")
    path = str(tmp_path / "models.lock")
    with running_hub({MODEL: Served(folder=folder)}) as hub:
        before = hub.get_commit(MODEL).sha
        with running_stack(hub) as first:
            assert first.run_json("lock", MODEL, "--lock-file", path)[0] == 0
        hub.add_commit(MODEL, files={"notes.json": json.dumps({"moved": True}).encode()})
        after = hub.get_commit(MODEL).sha
        assert after != before
        with running_stack(hub) as second:
            code, changes = second.run_json("lock", "diff", "--lock-file", path)
            assert code == 1
            assert any("notes.json is new" in one for one in changes["changes"][MODEL])
            code, job = second.run_json("load", MODEL, "--locked", "--lock-file", path)
            assert (code, job["resolution"]["commit"]) == (0, before)
            code, job = second.run_json("load", MODEL)
            assert (code, job["resolution"]["commit"]) == (0, after)


@pytest.mark.slow
def test_a_lock_and_an_exported_snapshot_are_enough_for_a_pool_that_reaches_no_hub(
    pool: Stack, lock_file: Path, tmp_path: Path
) -> None:
    snapshot = str(tmp_path / "llama.tar")
    assert pool.run("prefetch", LLAMA).returncode == 0
    assert pool.run("cache", "export", LLAMA, "-o", snapshot).returncode == 0
    load = ("load", LLAMA, "--locked", "--network", "offline", "--lock-file", str(lock_file))
    verify = ("lock", "verify", "--offline", "--lock-file", str(lock_file))
    away = {"WARMRACK_HUB_ENDPOINT": "http://127.0.0.1:9"}
    with running_stack(pool.hub, settings=away) as apart:
        code, answer = apart.run_json(*load)
        assert (code, answer["error"]["code"]) == (3, "offline-miss")
        assert "warmrack cache import" in answer["error"]["hint"]
        assert apart.run_json("cache", "import", snapshot)[0] == 0
        assert apart.run_json(*verify)[0] == 0
        code, job = apart.run_json(*load)
        assert (code, job["resolution"]["commit"]) == (0, pool.hub.get_commit(LLAMA).sha)
