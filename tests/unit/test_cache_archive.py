"""A snapshot as one file: always the same bytes, and nothing taken but what is announced."""

import io
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_cache_publish import BODIES, COMMIT, FILES, REPOSITORY, place_blobs
from warmrack_store.cache.archive import ArchiveReader, Manifest, archive_size, write_archive
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.errors import BadRequest, Integrity, WarmrackError
from warmrack_store.facts import FileFact, RepositoryFacts

SPARSE_BYTES = 64 * 2**20


@pytest.fixture
def layout(tmp_path: Path) -> RepositoryLayout:
    made = RepositoryLayout(cache_dir=tmp_path / "cache", repository=REPOSITORY)
    place_blobs(made)
    return made


def manifest(*files: FileFact) -> Manifest:
    held = files or FILES
    facts = RepositoryFacts(repository=REPOSITORY, commit=COMMIT, files=held)
    return Manifest(facts=facts, refs=("main",), paths=tuple(file.path for file in held))


def read_all(body: bytes) -> dict[str, bytes]:
    reader = ArchiveReader(io.BytesIO(body))
    found = {file.path: b"".join(reader.read_blob(file)) for file in reader.manifest.blobs}
    reader.check_end()
    return found


def test_archive_is_a_plain_tar_of_the_size_that_was_told(layout: RepositoryLayout) -> None:
    body = b"".join(write_archive(layout, manifest()))
    assert len(body) == archive_size(manifest())
    assert body == b"".join(write_archive(layout, manifest()))
    with tarfile.open(fileobj=io.BytesIO(body)) as plain:
        assert plain.getnames() == ["manifest.json", *(f"blobs/{f.digest}" for f in FILES)]
    assert read_all(body) == BODIES


def test_file_that_changed_ends_the_archive_early(layout: RepositoryLayout) -> None:
    layout.blob(FILES[1].digest).write_bytes(b"v" * 40)
    with pytest.raises(Integrity):
        b"".join(write_archive(layout, manifest()))


@pytest.mark.parametrize("cut", [0, 100, 700, 5_000])
def test_truncated_archive_is_refused(layout: RepositoryLayout, cut: int) -> None:
    body = b"".join(write_archive(layout, manifest()))
    end = len(body.rstrip(b"\0"))
    with pytest.raises(WarmrackError):
        read_all(body[: min(cut, end)])


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as plain:
        for member, body in members:
            member.size = len(body)
            plain.addfile(member, io.BytesIO(body))
    return made.getvalue()


def hostile() -> Iterator[tuple[str, tarfile.TarInfo]]:
    digest = FILES[0].digest
    yield "another name", tarfile.TarInfo(f"blobs/../{digest}")
    yield "an absolute path", tarfile.TarInfo(f"/{digest}")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE):
        member = tarfile.TarInfo(f"blobs/{digest}")
        member.type, member.linkname = kind, "/etc/passwd"
        yield f"type {kind!r}", member


@pytest.mark.parametrize("member", [pytest.param(m, id=n) for n, m in hostile()])
def test_member_that_was_not_announced_is_refused(member: tarfile.TarInfo) -> None:
    described = manifest().model_dump_json().encode()
    body = tar_of((tarfile.TarInfo("manifest.json"), described), (member, b""))
    with pytest.raises(Integrity):
        read_all(body)


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": ["../../etc/passwd"]},
        {"paths": ["config.json", "config.json"]},
        {"format": "warmrack-snapshot/9"},
        {"refs": ["../../main"]},
        {"surprise": 1},
    ],
)
def test_manifest_of_what_cannot_be_is_refused(changes: dict[str, object]) -> None:
    import json

    described = json.dumps({**manifest().model_dump(mode="json"), **changes}).encode()
    with pytest.raises(BadRequest):
        read_all(tar_of((tarfile.TarInfo("manifest.json"), described)))


def test_memory_does_not_grow_with_the_file(layout: RepositoryLayout) -> None:
    import hashlib

    hasher = hashlib.sha256()
    for _ in range(SPARSE_BYTES >> 20):
        hasher.update(bytes(1 << 20))
    file = FileFact(
        path="model.safetensors", size=SPARSE_BYTES, git_sha1="0" * 40, sha256=hasher.hexdigest()
    )
    with layout.blob(file.digest).open("wb") as stream:
        stream.truncate(SPARSE_BYTES)
    tracemalloc.start()
    try:
        sent_bytes = sum(len(chunk) for chunk in write_archive(layout, manifest(file)))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sent_bytes == archive_size(manifest(file))
    assert peak_bytes < 8 * 2**20
