"""What a look through a repository's folder finds, and what its quarantine keeps."""

import os
from pathlib import Path

import pytest

from tests.unit.test_cache_publish import COMMIT, FILES, REPOSITORY, place_blobs
from warmrack_store.cache.checking import Check, Wrong
from warmrack_store.cache.contents import find_listing, list_repositories, read_repository
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.publish import publish
from warmrack_store.cache.quarantine import list_quarantined, quarantine, remove, restore
from warmrack_store.cache.verified import VerifiedFile, find_verified
from warmrack_store.errors import BadRequest, Integrity, NotFound

CONFIG, WEIGHTS, POOLING = FILES


@pytest.fixture
def layout(tmp_path: Path) -> RepositoryLayout:
    made = RepositoryLayout(cache_dir=tmp_path / "cache", repository=REPOSITORY)
    place_blobs(made)
    publish(made, commit=COMMIT, files=FILES, public=True, tree=FILES)
    return made


def verified(layout: RepositoryLayout) -> dict[str, tuple[VerifiedFile, ...]]:
    found = [find_verified(layout.snapshot(COMMIT) / file.path, file) for file in FILES]
    return {COMMIT: tuple(one for one in found if one is not None)}


def look(
    layout: RepositoryLayout, *, quick: bool = False, **known: object
) -> list[tuple[Wrong, str]]:
    check = Check(
        held=read_repository(layout),
        known={COMMIT: FILES},
        verified=known.get("verified", {}),  # type: ignore[arg-type]
        quick=quick,
    )
    return [(finding.kind, finding.path) for finding in check.run()]


def test_good_folder_has_nothing_wrong(layout: RepositoryLayout) -> None:
    assert list_repositories(layout.cache_dir) == (REPOSITORY,)
    assert look(layout, verified=verified(layout)) == []
    assert find_listing(layout, COMMIT) == tuple(sorted(FILES, key=lambda file: file.path))


def test_flipped_byte_is_corrupt_and_a_quick_look_sees_that_it_changed(
    layout: RepositoryLayout,
) -> None:
    before = verified(layout)
    layout.blob(WEIGHTS.digest).write_bytes(b"v" * WEIGHTS.size)
    os.utime(layout.blob(WEIGHTS.digest), ns=(1, 1))
    assert look(layout) == [(Wrong.CORRUPT, f"blobs/{WEIGHTS.digest}")]
    assert look(layout, quick=True, verified=before) == [(Wrong.CHANGED, f"blobs/{WEIGHTS.digest}")]


def test_missing_blob_and_missing_name_are_found(layout: RepositoryLayout) -> None:
    before = verified(layout)
    layout.blob(CONFIG.digest).unlink()
    (layout.snapshot(COMMIT) / POOLING.path).unlink()
    found = look(layout, verified=before)
    assert (Wrong.MISSING, CONFIG.path) in found
    assert (Wrong.MISSING, POOLING.path) in found


def test_link_to_another_blob_and_link_out_of_the_cache_are_found(
    layout: RepositoryLayout, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"{}")
    for file, target in ((CONFIG, outside), (WEIGHTS, layout.blob(CONFIG.digest))):
        place = layout.snapshot(COMMIT) / file.path
        place.unlink()
        place.symlink_to(target)
    found = look(layout)
    assert (Wrong.FOREIGN, CONFIG.path) in found
    assert (Wrong.CORRUPT, WEIGHTS.path) in found


def test_orphans_are_found(layout: RepositoryLayout) -> None:
    (layout.snapshot(COMMIT) / CONFIG.path).unlink()
    layout.part(POOLING.digest).write_bytes(b"half")
    (layout.blobs / f"{POOLING.digest}.1234.incomplete").write_bytes(b"half")
    kinds = sorted(kind for kind, _ in look(layout))
    assert kinds == [Wrong.ORPHAN_BLOB, Wrong.ORPHAN_PART, Wrong.ORPHAN_PART]


def test_shared_store_of_hub_2_4_is_followed_and_its_payload_hashed(
    layout: RepositoryLayout,
) -> None:
    blob = layout.blob(WEIGHTS.digest)
    shared = layout.cache_dir / "blobs" / "ab" / ("ab" + "0" * 62)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    assert look(layout) == []
    shared.chmod(0o644)
    shared.write_bytes(b"v" * WEIGHTS.size)
    assert look(layout) == [(Wrong.CORRUPT, f"blobs/{WEIGHTS.digest}")]


def test_quarantine_keeps_where_a_file_came_from_and_what_was_wrong(
    layout: RepositoryLayout,
) -> None:
    blob = layout.blob(WEIGHTS.digest)
    blob.write_bytes(b"v" * WEIGHTS.size)
    kept_id = quarantine(layout, blob, expected=WEIGHTS.digest, actual="0" * 64).name
    (kept,) = list_quarantined(layout)
    assert (kept.id, kept.came_from) == (kept_id, f"blobs/{WEIGHTS.digest}")
    assert (kept.expected, kept.actual) == (WEIGHTS.digest, "0" * 64)
    with pytest.raises(Integrity):
        restore(layout, kept_id)
    assert remove(layout, kept_id) == WEIGHTS.size
    assert list(layout.work.iterdir()) == []


def test_only_right_bytes_come_back_and_never_over_another_file(layout: RepositoryLayout) -> None:
    blob = layout.blob(WEIGHTS.digest)
    first = quarantine(layout, blob, expected=WEIGHTS.digest).name
    assert restore(layout, first) == blob
    second = quarantine(layout, blob, expected=WEIGHTS.digest).name
    blob.write_bytes(b"another")
    with pytest.raises(BadRequest):
        restore(layout, second)


@pytest.mark.parametrize("kept_id", ["../../x.00000000.bad", "nothing.00000000.bad", "config.json"])
def test_id_that_is_none_is_refused(layout: RepositoryLayout, kept_id: str) -> None:
    with pytest.raises(NotFound):
        remove(layout, kept_id)
