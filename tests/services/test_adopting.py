"""Snapshots of other tools taken into a store: partial, shared, killed, without room, two at once."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.services.hosts import COMMIT, flip_last_byte, make_snapshot, make_spec, replace_bytes
from tests.services.stores import Store
from warmrack_store.cache.archive import Manifest, write_archive
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.publish import tree_listing
from warmrack_store.cache_questions import (
    AdoptableQuestion,
    Adoption,
    AdoptQuestion,
    ContentsQuestion,
    ImportQuestion,
    Proof,
)
from warmrack_store.database import Database
from warmrack_store.errors import BadRequest, DiskFull, Integrity
from warmrack_store.facts import RepositoryFacts
from warmrack_store.ledgers import copies, resolutions
from warmrack_workers.adopting import Adopter
from warmrack_workers.archives import Archives
from warmrack_workers.content_checks import ContentChecks

REPOSITORY = "tests/tiny"
WEIGHTS = "model.safetensors"
SMALL_BYTES = 64 * 1024
CHECKOUT = Path(__file__).parents[2]


class Shop:
    """A store of ours and a cache that another tool has filled."""

    def __init__(self, store: Store, folder: Path, cache: Path | None = None) -> None:
        self.database = store.database
        self.cache = cache or folder / "ours"
        self.cache.mkdir(exist_ok=True)
        self.other = folder / "other"
        self.source = RepositoryLayout(cache_dir=self.other, repository=REPOSITORY)
        self.snapshot = make_snapshot("tiny_llama", self.source.folder)
        spec = make_spec(self.snapshot, folder)
        self.resolution = spec.resolution
        self.facts = RepositoryFacts(
            repository=REPOSITORY, commit=COMMIT, files=self.resolution.files
        )
        self.layout = RepositoryLayout(cache_dir=self.cache, repository=REPOSITORY)

    def know(self) -> None:
        """The Hub has told the tree of the commit."""
        with self.database.write() as tx:
            resolutions.put_facts(tx, self.facts)

    def adopt(self, *, own: bool = False, public: bool | None = True) -> Adoption:
        folder = None if own else str(self.other)
        return self.adopter.adopt(
            AdoptQuestion(folder=folder, repository=REPOSITORY, commit=COMMIT, public=public)
        )

    def move_in(self) -> None:
        """The other tool's cache is our own from now on."""
        shutil.rmtree(self.cache)
        self.other.rename(self.cache)
        self.snapshot = self.layout.snapshot(COMMIT)

    @property
    def adopter(self) -> Adopter:
        return Adopter(
            database=self.database, cache_dir=self.cache, node="n0", store="s0", lease_seconds=6.0
        )

    @property
    def archives(self) -> Archives:
        return Archives(
            database=self.database, cache_dir=self.cache, node="n0", store="s0", lease_seconds=6.0
        )

    @property
    def complete(self) -> list[bool]:
        with self.database.read() as tx:
            return [copy.complete for copy in copies.list_copies_of(tx, REPOSITORY, COMMIT)]

    def pack(self) -> bytes:
        manifest = Manifest(
            facts=self.facts, refs=("main",), paths=tuple(file.path for file in self.facts.files)
        )
        return b"".join(write_archive(self.source, manifest))

    def take_in(self, body: bytes, public: bool | None = True) -> object:
        import io

        question = ImportQuestion(repository=REPOSITORY, commit=COMMIT, public=public)
        return self.archives.take_in(question, io.BytesIO(body))


@pytest.fixture
def shop(sqlite: Store, tmp_path: Path) -> Shop:
    return Shop(sqlite, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_partial_snapshot_is_recorded_as_partial_and_finished_later(shop: Shop) -> None:
    shop.know()
    shop.move_in()
    weights = (shop.snapshot / WEIGHTS).resolve()
    kept = weights.read_bytes()
    weights.unlink()
    (shop.snapshot / WEIGHTS).unlink()
    first = shop.adopt(own=True)
    assert (first.complete, first.recorded, shop.complete) == (False, False, [False])
    weights.write_bytes(kept)
    (shop.snapshot / WEIGHTS).symlink_to(f"../../blobs/{weights.name}")
    second = shop.adopt(own=True)
    assert (second.recorded, shop.complete) == (True, [True])
    assert second.read_bytes == len(kept), "what was hashed and has not changed is not read again"


def test_partial_snapshot_of_another_folder_is_never_visible(shop: Shop) -> None:
    shop.know()
    (shop.snapshot / WEIGHTS).unlink()
    assert not shop.adopt().complete
    assert not shop.layout.snapshot(COMMIT).exists()
    config = next(file for file in shop.facts.files if file.path == "config.json")
    assert shop.layout.blob(config.digest).is_file()


def test_shared_store_of_hub_2_4_is_adopted_in_place_and_from_elsewhere(shop: Shop) -> None:
    shop.know()
    blob = (shop.snapshot / WEIGHTS).resolve()
    shared = shop.other / "blobs" / "ab" / ("ab" + "0" * 62)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    assert shop.adopt().recorded
    assert (shop.layout.snapshot(COMMIT) / WEIGHTS).stat().st_ino == shared.stat().st_ino
    shop.move_in()
    found = shop.adopt(own=True)
    assert (found.recorded, found.wrong) == (True, ())
    assert shop.layout.blob(blob.name).is_symlink(), "nothing was replaced"


def test_corrupt_file_is_named_and_never_taken(shop: Shop) -> None:
    shop.know()
    replace_bytes(shop.snapshot / WEIGHTS, flip_last_byte, quietly=True)
    found = shop.adopt()
    assert [(one.path, one.state) for one in found.wrong] == [(WEIGHTS, "corrupt")]
    assert (found.recorded, shop.layout.snapshot(COMMIT).exists()) == (False, False)
    assert (shop.snapshot / WEIGHTS).exists(), "another folder is left as it is"


def test_link_out_of_the_folder_is_refused_and_named(shop: Shop, tmp_path: Path) -> None:
    shop.know()
    outside = tmp_path / "outside"
    shutil.copyfile(shop.snapshot / WEIGHTS, outside)
    (shop.snapshot / WEIGHTS).unlink()
    (shop.snapshot / WEIGHTS).symlink_to(outside)
    found = shop.adopt()
    assert [(one.path, one.state) for one in found.wrong] == [(WEIGHTS, "foreign")]
    assert not found.complete


def test_non_public_snapshot_is_closed_when_it_is_taken(shop: Shop) -> None:
    shop.know()
    assert shop.adopt(public=False).recorded
    assert shop.layout.folder.stat().st_mode & 0o077 == 0


def test_without_a_hub_the_listing_beside_the_files_is_the_proof(shop: Shop) -> None:
    shop.move_in()
    assert shop.adopt(own=True, public=None).proof is Proof.NAMES
    shop.layout.trees.mkdir()
    shop.layout.tree(COMMIT).write_text(tree_listing(shop.facts.files))
    found = shop.adopt(own=True, public=None)
    assert (found.proof, found.complete, found.recorded) == (Proof.LISTING, True, False)
    assert shop.complete in ([False, False], [False])
    shop.know()
    online = shop.adopt(own=True)
    assert (online.recorded, online.read_bytes) == (True, 0)


def test_two_at_once_both_succeed_and_leave_nothing_behind(shop: Shop) -> None:
    shop.know()
    with ThreadPoolExecutor(2) as pool:
        found = [one.result() for one in [pool.submit(shop.adopt) for _ in range(2)]]
    assert [one.recorded for one in found] == [True, True]
    assert list(shop.layout.work.iterdir()) == []


def test_folder_that_is_none_is_refused(shop: Shop) -> None:
    for folder in ("relative", "/nowhere/at/all", "/etc/passwd"):
        with pytest.raises(BadRequest):
            shop.adopter.list_adoptable(AdoptableQuestion(folder=folder))


def test_adoption_that_was_killed_is_swept_and_done_again(shop: Shop) -> None:
    """As kill -9 leaves it: a file that was not verified yet."""
    shop.know()
    shop.layout.work.mkdir(parents=True)
    left = shop.layout.work / f"{COMMIT}.{'0' * 64}.00000000.incoming"
    left.write_bytes(b"half")
    assert shop.adopt().recorded
    assert not left.exists()


def test_copy_that_does_not_fit_is_refused_before_the_first_byte(
    sqlite: Store, tmp_path: Path, small_disk: Path
) -> None:
    shop = Shop(sqlite, tmp_path, small_disk)
    shop.know()
    with pytest.raises(DiskFull):
        shop.adopt()
    with pytest.raises(DiskFull):
        shop.take_in(shop.pack())
    assert [place for place in shop.layout.blobs.iterdir() if shop.layout.blobs.exists()] == []


def test_archive_is_taken_in_whole_or_not_at_all(shop: Shop) -> None:
    body = shop.pack()
    with pytest.raises(Integrity):
        shop.take_in(body[: len(body) // 2])
    assert not shop.layout.snapshot(COMMIT).exists()
    assert list(shop.layout.work.glob("*.incoming")) == []
    shop.take_in(body)
    assert shop.complete == [True]
    checks = ContentChecks(database=shop.database, cache_dir=shop.cache, node="n0", store="s0")
    assert checks.check(ContentsQuestion()).findings == ()


def test_archive_of_another_tree_than_the_hubs_is_refused(shop: Shop) -> None:
    body = shop.pack()
    shop.facts = shop.facts.model_copy(update={"files": shop.facts.files[:-1]})
    shop.know()
    with pytest.raises(Integrity, match="other files"):
        shop.take_in(body)
    assert not shop.layout.folder.exists()


@pytest.mark.slow
def test_import_that_is_killed_shows_nothing_and_the_next_one_is_whole(
    shop: Shop, sqlite: Store, tmp_path: Path
) -> None:
    body = shop.pack()
    script = (
        "import sys; from pathlib import Path; from tests.services.test_adopting import take_slowly;"
        "take_slowly(sys.argv[1], Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, sqlite.url, str(shop.cache)]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(body[: len(body) * 3 // 4])
        child.stdin.flush()
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.stdin.close()
    assert not shop.layout.snapshot(COMMIT).exists()
    assert list(shop.layout.work.glob("*.incoming"))
    sqlite.pass_time(60)
    shop.take_in(body)
    assert list(shop.layout.work.glob("*.incoming")) == []
    assert shop.complete == [True]


class Told:
    """stdin, telling on stdout when the largest part of the archive is on its way."""

    def __init__(self) -> None:
        self.read_bytes = 0

    def read(self, size_bytes: int, /) -> bytes:
        data = sys.stdin.buffer.read(min(size_bytes, 64 * 1024))
        before, self.read_bytes = self.read_bytes, self.read_bytes + len(data)
        if before < SMALL_BYTES * 4 <= self.read_bytes:
            print("on its way", flush=True)
        return data


def take_slowly(url: str, cache: Path) -> None:
    """The process that is killed."""
    archives = Archives(
        database=Database(url), cache_dir=cache, node="n0", store="s0", lease_seconds=6.0
    )
    archives.take_in(ImportQuestion(repository=REPOSITORY, commit=COMMIT, public=True), Told())
