"""What is published, seen by huggingface_hub itself."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache
from huggingface_hub._tree_cache import TreeCacheEntry, read_tree_cache, write_tree_cache
from huggingface_hub.errors import IncompleteSnapshotError

from warmrack_store.cache.folders import make_folders
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.publish import publish, tree_listing
from warmrack_store.errors import Integrity
from warmrack_store.facts import FileFact

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "acme/tiny"


def make_fact(path: str, body: bytes, *, lfs: bool = False) -> FileFact:
    return FileFact(
        path=path,
        size=len(body),
        git_sha1=hashlib.sha1(b"blob %d\x00" % len(body) + body).hexdigest(),
        sha256=hashlib.sha256(body).hexdigest() if lfs else None,
    )


BODIES = {"config.json": b"{}", "model.safetensors": b"w" * 40, "1_Pooling/config.json": b"{1}"}
FILES = tuple(make_fact(p, b, lfs=p.endswith("tensors")) for p, b in BODIES.items())


@pytest.fixture
def layout(tmp_path: Path) -> RepositoryLayout:
    return RepositoryLayout(cache_dir=tmp_path / "cache", repository=REPOSITORY)


def place_blobs(layout: RepositoryLayout, *, public: bool = True) -> None:
    make_folders(layout, public=public)
    for file in FILES:
        layout.blob(file.digest).write_bytes(BODIES[file.path])


def load_offline(layout: RepositoryLayout, revision: str) -> Path:
    return Path(
        snapshot_download(
            REPOSITORY, revision=revision, cache_dir=layout.cache_dir, local_files_only=True
        )
    )


def test_a_stock_client_finds_the_whole_snapshot_offline(layout: RepositoryLayout) -> None:
    place_blobs(layout)
    published = publish(layout, commit=COMMIT, files=FILES, public=True, tree=FILES, ref="main")
    assert load_offline(layout, "main") == load_offline(layout, COMMIT) == published
    for path, body in BODIES.items():
        found = try_to_load_from_cache(REPOSITORY, path, cache_dir=layout.cache_dir)
        assert isinstance(found, str)
        assert Path(found).read_bytes() == body


def test_a_stock_scan_sees_one_revision_and_warns_of_nothing(layout: RepositoryLayout) -> None:
    place_blobs(layout)
    layout.part(FILES[0].digest).write_bytes(b"half")
    publish(layout, commit=COMMIT, files=FILES, public=True, tree=FILES, ref="refs/pr/1")
    scan = scan_cache_dir(layout.cache_dir)
    assert scan.warnings == []
    (repository,) = scan.repos
    (revision,) = repository.revisions
    assert (revision.commit_hash, revision.refs) == (COMMIT, frozenset({"refs/pr/1"}))
    assert revision.nb_files == len(FILES)


def test_folders_without_a_snapshot_yet_do_not_make_a_stock_scan_warn(
    layout: RepositoryLayout,
) -> None:
    make_folders(layout, public=True)
    assert scan_cache_dir(layout.cache_dir).warnings == []


def test_the_listing_is_what_huggingface_hub_itself_would_write(
    layout: RepositoryLayout, tmp_path: Path
) -> None:
    entries = {
        file.path: TreeCacheEntry(
            size=file.size,
            blob_id=file.git_sha1,
            lfs_sha256=file.sha256,
            lfs_size=None if file.sha256 is None else file.size,
        )
        for file in FILES
    }
    write_tree_cache(str(tmp_path / "stock"), COMMIT, entries)
    stock = tmp_path / "stock" / "trees" / f"{COMMIT}.json"
    assert tree_listing(FILES) == stock.read_text()
    place_blobs(layout)
    publish(layout, commit=COMMIT, files=FILES, public=True, tree=FILES)
    assert read_tree_cache(str(layout.folder), COMMIT) == entries


def test_a_part_of_the_tree_gets_no_listing_so_that_a_stock_load_of_it_works(
    layout: RepositoryLayout,
) -> None:
    place_blobs(layout)
    publish(layout, commit=COMMIT, files=FILES[:2], public=True, tree=FILES, ref="main")
    assert not layout.tree(COMMIT).exists()
    assert load_offline(layout, "main").is_dir()


def test_the_listing_makes_a_stock_client_notice_a_file_that_went_missing(
    layout: RepositoryLayout,
) -> None:
    place_blobs(layout)
    snapshot = publish(layout, commit=COMMIT, files=FILES, public=True, tree=FILES)
    (snapshot / "config.json").unlink()
    with pytest.raises(IncompleteSnapshotError):
        load_offline(layout, COMMIT)


def test_an_existing_snapshot_gets_the_links_it_lacks(layout: RepositoryLayout) -> None:
    place_blobs(layout)
    publish(layout, commit=COMMIT, files=FILES[:1], public=True)
    snapshot = publish(layout, commit=COMMIT, files=FILES, public=True)
    assert {path: (snapshot / path).read_bytes() for path in BODIES} == BODIES


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The paths, as they were then, of what was brought to the disk."""
    paths: set[str] = set()
    really = os.fsync

    def fsync(descriptor: int) -> None:
        paths.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def test_every_folder_of_a_new_snapshot_is_on_the_disk(
    layout: RepositoryLayout, synced: set[str]
) -> None:
    place_blobs(layout)
    publish(layout, commit=COMMIT, files=FILES, public=True)
    building = layout.building(COMMIT)
    whole = {building, building / "1_Pooling", layout.blobs, layout.snapshots, layout.folder}
    assert {str(folder) for folder in (*whole, layout.cache_dir)} <= synced


def test_links_added_to_a_snapshot_are_on_the_disk(
    layout: RepositoryLayout, synced: set[str]
) -> None:
    place_blobs(layout)
    publish(layout, commit=COMMIT, files=FILES[:1], public=True)
    synced.clear()
    snapshot = publish(layout, commit=COMMIT, files=FILES, public=True)
    assert {str(snapshot), str(snapshot / "1_Pooling")} <= synced


def test_a_wrong_link_is_moved_aside_and_a_right_plain_file_is_left(
    layout: RepositoryLayout,
) -> None:
    place_blobs(layout)
    snapshot = layout.snapshot(COMMIT)
    snapshot.mkdir()
    (snapshot / "config.json").write_bytes(BODIES["config.json"])
    (snapshot / "model.safetensors").symlink_to("/etc/hostname")
    publish(layout, commit=COMMIT, files=FILES, public=True)
    assert not (snapshot / "config.json").is_symlink()
    assert (snapshot / "model.safetensors").read_bytes() == BODIES["model.safetensors"]
    assert len(list(layout.work.glob("*.bad"))) == 1


def test_a_folder_of_the_snapshot_that_is_a_link_is_refused(
    layout: RepositoryLayout, tmp_path: Path
) -> None:
    place_blobs(layout)
    outside = tmp_path / "outside"
    outside.mkdir()
    layout.snapshot(COMMIT).mkdir()
    (layout.snapshot(COMMIT) / "1_Pooling").symlink_to(outside)
    with pytest.raises(Integrity):
        publish(layout, commit=COMMIT, files=FILES, public=True)
    assert list(outside.iterdir()) == []


def test_nothing_is_visible_while_a_blob_is_missing(layout: RepositoryLayout) -> None:
    place_blobs(layout)
    layout.blob(FILES[1].digest).unlink()
    with pytest.raises(Integrity, match=r"model\.safetensors"):
        publish(layout, commit=COMMIT, files=FILES, public=True, ref="main")
    assert not layout.snapshot(COMMIT).exists()
    assert not layout.ref("main").exists()


def test_what_a_killed_process_left_of_a_snapshot_does_not_stay_in_the_next_one(
    layout: RepositoryLayout,
) -> None:
    place_blobs(layout)
    (layout.building(COMMIT) / "left").mkdir(parents=True)
    snapshot = publish(layout, commit=COMMIT, files=FILES, public=True)
    assert not (snapshot / "left").exists()
    assert not layout.building(COMMIT).exists()


@pytest.mark.parametrize(
    ("public", "folder", "file"), [(True, 0o755, 0o644), (False, 0o700, 0o600)]
)
def test_the_modes_follow_the_visibility(
    layout: RepositoryLayout, public: bool, folder: int, file: int
) -> None:
    place_blobs(layout, public=public)
    publish(layout, commit=COMMIT, files=FILES, public=public, tree=FILES, ref="main")
    made = [layout.folder, layout.snapshot(COMMIT), layout.blobs, layout.refs, layout.work]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {folder}
    written = [layout.tree(COMMIT), layout.ref("main")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {file}


def test_a_repository_that_turned_private_is_closed_and_never_opened_again(
    layout: RepositoryLayout,
) -> None:
    for public in (True, False, True):
        make_folders(layout, public=public)
    assert stat.S_IMODE(layout.folder.stat().st_mode) == 0o700
