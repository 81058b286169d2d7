"""Where things lie, and which names are let in."""

from pathlib import Path

import pytest
from huggingface_hub.file_download import repo_folder_name

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.errors import BadRequest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "ab" * 32
LAYOUT = RepositoryLayout(cache_dir=Path("/cache"), repository="acme/tiny.v-1")


def test_the_folder_is_named_as_huggingface_hub_names_it() -> None:
    assert LAYOUT.folder_name == repo_folder_name(repo_id="acme/tiny.v-1", repo_type="model")


def test_partial_files_lie_in_our_own_folder_and_locks_where_stock_clients_look() -> None:
    assert LAYOUT.part(SHA256) == LAYOUT.folder / ".warmrack" / f"{SHA256}.part"
    assert LAYOUT.lock(SHA256) == Path(f"/cache/.locks/{LAYOUT.folder_name}/{SHA256}.lock")


@pytest.mark.parametrize("path", ["a.json", "1_Pooling/config.json", "a/b/c/d.bin"])
def test_a_link_leads_from_any_depth_of_the_snapshot_to_the_blob(path: str) -> None:
    place = LAYOUT.snapshot(COMMIT) / path
    reached = (place.parent / LAYOUT.link_target(path, SHA256)).resolve()
    assert reached == LAYOUT.blob(SHA256)


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "AB" * 32, "ab" * 31, f"{SHA256}\n"])
def test_a_digest_that_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(BadRequest):
        LAYOUT.blob(digest)


@pytest.mark.parametrize("ref", ["../main", "/main", "a//b", "main.lock"])
def test_a_ref_that_would_leave_its_folder_is_refused(ref: str) -> None:
    with pytest.raises(BadRequest):
        LAYOUT.ref(ref)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", "", "a\\b"])
def test_a_path_that_would_leave_the_snapshot_is_refused(path: str) -> None:
    with pytest.raises(BadRequest):
        LAYOUT.link_target(path, SHA256)


@pytest.mark.parametrize("commit", ["main", COMMIT[:-1], f"{COMMIT}/..", COMMIT.upper()])
def test_a_commit_is_forty_hex_digits(commit: str) -> None:
    with pytest.raises(BadRequest):
        LAYOUT.snapshot(commit)


def test_a_repository_that_would_leave_the_cache_is_refused() -> None:
    with pytest.raises(BadRequest):
        RepositoryLayout(cache_dir=Path("/cache"), repository="../x")
