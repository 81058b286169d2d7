"""The cache folder as a whole: who it is, and how much room it has."""

import errno
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from warmrack_store.cache.identity import store_identity
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.locks import blob_lock
from warmrack_store.cache.space import check_space, disk_full_as_refusal
from warmrack_store.errors import Cancelled, DiskFull


def test_the_identity_stays_with_the_folder_when_it_moves(tmp_path: Path) -> None:
    first = store_identity(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert store_identity(tmp_path / "b") == first
    assert store_identity(tmp_path / "a") != first


def test_two_that_ask_at_once_get_the_same_identity(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def ask(_number: int) -> str:
        barrier.wait()
        return store_identity(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


def test_the_identity_is_no_worry_to_a_stock_scan(tmp_path: Path) -> None:
    store_identity(tmp_path)
    scan = scan_cache_dir(tmp_path)
    assert (scan.warnings, scan.repos) == ([], frozenset())


def test_a_full_disk_is_refused_with_need_and_have_before_the_folder_exists(
    tmp_path: Path,
) -> None:
    need = shutil.disk_usage(tmp_path).total * 2
    with pytest.raises(DiskFull, match=rf"{need} bytes are needed .* \d+ are free"):
        check_space(tmp_path / "not" / "there", need)
    check_space(tmp_path / "not" / "there", 1)


def test_only_a_full_disk_becomes_disk_full(tmp_path: Path) -> None:
    with pytest.raises(DiskFull), disk_full_as_refusal(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), disk_full_as_refusal(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_who_waits_for_a_lock_can_be_stopped(tmp_path: Path) -> None:
    layout = RepositoryLayout(cache_dir=tmp_path, repository="acme/tiny")
    layout.locks.mkdir(parents=True)
    halt = threading.Event()
    digest = "ab" * 32
    with blob_lock(layout, digest, threading.Event()), ThreadPoolExecutor(1) as pool:

        def take() -> None:
            with blob_lock(layout, digest, halt):
                raise AssertionError("two hold one lock")

        waiting = pool.submit(take)
        halt.set()
        with pytest.raises(Cancelled):
            waiting.result(timeout=5)
