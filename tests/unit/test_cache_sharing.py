"""Blobs that several repositories of one cache share."""

import hashlib
from pathlib import Path

import pytest

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.sharing import link_known_blobs
from warmrack_store.cache.verified import VerifiedFile, find_verified
from warmrack_store.facts import FileFact

DATA = b"weights" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()
FILE = FileFact(path="model.safetensors", size=len(DATA), git_sha1="0" * 40, sha256=SHA256)


@pytest.fixture
def held(tmp_path: Path) -> tuple[Path, VerifiedFile]:
    place = tmp_path / "models--org--one" / "blobs" / SHA256
    place.parent.mkdir(parents=True)
    place.write_bytes(DATA)
    place.chmod(0o644)
    verified = find_verified(place, FILE)
    assert verified is not None
    return place, verified


@pytest.fixture
def layout(tmp_path: Path) -> RepositoryLayout:
    return RepositoryLayout(cache_dir=tmp_path, repository="org/two")


def test_the_second_repository_has_the_blob_without_a_second_copy(
    layout: RepositoryLayout, held: tuple[Path, VerifiedFile]
) -> None:
    (linked,) = link_known_blobs(layout, [FILE], [held])
    assert layout.blob(SHA256).samefile(held[0])
    assert linked.is_unchanged(layout.blob(SHA256))


def test_what_only_its_owner_may_read_is_not_shared(
    layout: RepositoryLayout, held: tuple[Path, VerifiedFile]
) -> None:
    held[0].chmod(0o600)
    assert link_known_blobs(layout, [FILE], [held]) == ()
    assert not layout.blob(SHA256).exists()


def test_a_blob_that_changed_since_it_was_verified_is_not_shared(
    layout: RepositoryLayout, held: tuple[Path, VerifiedFile]
) -> None:
    held[0].write_bytes(DATA[::-1])
    assert link_known_blobs(layout, [FILE], [held]) == ()


def test_a_blob_that_is_there_already_stays(
    layout: RepositoryLayout, held: tuple[Path, VerifiedFile]
) -> None:
    layout.blobs.mkdir(parents=True)
    layout.blob(SHA256).write_bytes(DATA)
    assert link_known_blobs(layout, [FILE], [held]) == ()
    assert not layout.blob(SHA256).samefile(held[0])
