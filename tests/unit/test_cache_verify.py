"""Files hashed again, on a cache that somebody touched."""

import os
from pathlib import Path

import pytest

from tests.unit.test_cache_publish import COMMIT, FILES, REPOSITORY, place_blobs
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.publish import publish
from warmrack_store.cache.snapshots import FileState, verify_snapshot

CONFIG, WEIGHTS, POOLING = FILES


@pytest.fixture
def layout(tmp_path: Path) -> RepositoryLayout:
    layout = RepositoryLayout(cache_dir=tmp_path / "cache", repository=REPOSITORY)
    place_blobs(layout)
    publish(layout, commit=COMMIT, files=FILES, public=True)
    return layout


def find_states(layout: RepositoryLayout) -> dict[str, FileState]:
    return {file.path: file.state for file in verify_snapshot(layout, COMMIT, FILES)}


def test_an_untouched_snapshot_is_good_and_every_file_has_its_sha256(
    layout: RepositoryLayout,
) -> None:
    checked = verify_snapshot(layout, COMMIT, FILES)
    assert {file.state for file in checked} == {FileState.GOOD}
    assert all(file.verified and len(file.verified.sha256) == 64 for file in checked)


def test_a_flipped_byte_a_missing_blob_and_a_foreign_link_are_told_apart(
    layout: RepositoryLayout,
) -> None:
    layout.blob(WEIGHTS.digest).write_bytes(b"w" * 39 + b"x")
    layout.blob(POOLING.digest).unlink()
    config = layout.snapshot(COMMIT) / "config.json"
    config.unlink()
    config.symlink_to("/etc/hostname")
    assert find_states(layout) == {
        "config.json": FileState.FOREIGN,
        "model.safetensors": FileState.CORRUPT,
        "1_Pooling/config.json": FileState.MISSING,
    }


def test_a_blob_in_the_store_shared_by_all_repositories_is_good(layout: RepositoryLayout) -> None:
    shared = layout.cache_dir / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob = layout.blob(WEIGHTS.digest)
    blob.rename(shared)
    blob.symlink_to(f"../../blobs/ab/{shared.name}")
    assert find_states(layout)["model.safetensors"] is FileState.GOOD


def test_a_file_unchanged_since_it_was_known_is_not_read_again(layout: RepositoryLayout) -> None:
    known = [file.verified for file in verify_snapshot(layout, COMMIT, FILES) if file.verified]
    blob = layout.blob(WEIGHTS.digest)
    seen = blob.stat()
    with blob.open("r+b") as stream:
        stream.write(b"x")
    os.utime(blob, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    again = verify_snapshot(layout, COMMIT, FILES, known)
    assert {file.state for file in again} == {FileState.GOOD}
    os.utime(blob, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1))
    states = {file.path: file.state for file in verify_snapshot(layout, COMMIT, FILES, known)}
    assert states["model.safetensors"] is FileState.CORRUPT
