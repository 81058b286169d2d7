"""A fetcher that is killed, and a disk that is full."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event

import pytest
from blake3 import blake3
from huggingface_hub import scan_cache_dir

from tests.hub.control import CHECKOUT, Hub, running_hub
from tests.hub.faults import Origin, Stall
from tests.services.test_fetch_snapshot import (
    LARGE_BYTES,
    MODEL,
    Rig,
    read_folder,
    write_repository,
)
from warmrack_store.errors import DiskFull
from warmrack_store.pieces import Piece, list_pieces
from warmrack_workers.fetch.fetcher import FetchPlan, fetch_snapshot
from warmrack_workers.fetch.filling import MARK_BYTES
from warmrack_workers.fetch.journal import Journal, Mark
from warmrack_workers.fetch.tally import FetchProgress

DISK_BYTES = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def rig(hub: Hub, folder: Path, tmp_path: Path) -> Rig:
    hub.add_repository(MODEL, folder)
    hub.clear_faults()
    hub.reset_counts()
    return Rig(hub=hub, cache_dir=tmp_path / "cache")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def run_until_killed(rig: Rig, at_bytes: int) -> None:
    """Fetch in another process and kill it once so many bytes are there."""
    given = json.dumps({"hub": asdict(rig.hub), "cache_dir": str(rig.cache_dir)})
    command = [sys.executable, "-m", "tests.services.test_fetch_crash", given]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= at_bytes:
                process.kill()
                break
        assert process.wait(timeout=10) == -9


def main() -> None:
    """The process that is killed: prints the bytes that are there, as they arrive."""
    given = json.loads(sys.argv[1])
    rig = Rig(hub=Hub(**given["hub"]), cache_dir=Path(given["cache_dir"]))
    plan = rig.plan()

    def tell(progress: FetchProgress) -> None:
        print(progress.bytes_done, flush=True)

    with rig.source(plan) as source:
        fetch_snapshot(plan, source, on_progress=tell, stop=Event())


def test_after_two_kills_the_next_fetch_goes_on_and_the_hub_sends_each_byte_about_once(
    rig: Rig, folder: Path
) -> None:
    """Each kill comes shortly after a mark of each piece under way."""
    for at_bytes in (2 * 8 * MARK_BYTES - 100_000, LARGE_BYTES * 5 // 6):
        gate = rig.hub.add_fault(
            Stall(after_bytes=8 * MARK_BYTES), path=r"/model\.bin", origin=Origin.CDN
        )
        run_until_killed(rig, at_bytes)
        rig.hub.clear_faults(gate)
    plan = rig.plan()
    assert not plan.layout.snapshot(plan.commit).exists()
    assert scan_cache_dir(rig.cache_dir).warnings == []
    fetched = rig.fetch(plan)
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert fetched.resumed_bytes >= LARGE_BYTES // 2
    total_bytes = sum(file.size for file in plan.blobs)
    assert rig.hub.read_counts().file_bytes() <= 1.1 * total_bytes


def leave_part(plan: FetchPlan, body: bytes, journal: str = "") -> tuple[Piece, ...]:
    """What an earlier fetch of the large file left: all of `body` noted in the journal."""
    large = next(file for file in plan.blobs if file.size == LARGE_BYTES)
    plan.layout.snapshots.mkdir(parents=True)
    plan.layout.work.mkdir(parents=True)
    plan.layout.part(large.digest).write_bytes(body)
    pieces = list_pieces(LARGE_BYTES)
    kept = Journal(plan.layout.journal(large.digest), pieces)
    for piece in pieces:
        digest = blake3(body[piece.start : piece.end]).hexdigest()
        kept.add(Mark(index=piece.index, size_bytes=piece.size_bytes, blake3=digest))
    kept.close()
    with plan.layout.journal(large.digest).open("a") as stream:
        stream.write(journal)
    return pieces


def test_a_piece_that_a_power_cut_spoiled_is_fetched_again_alone(rig: Rig, folder: Path) -> None:
    plan = rig.plan()
    body = bytearray((folder / "model.bin").read_bytes())
    pieces = leave_part(plan, bytes(body))
    spoiled = pieces[1]
    body[spoiled.start : spoiled.end] = bytes(spoiled.size_bytes)
    large = next(file for file in plan.blobs if file.size == LARGE_BYTES)
    plan.layout.part(large.digest).write_bytes(body)
    fetched = rig.fetch(plan)
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert fetched.resumed_bytes == LARGE_BYTES - spoiled.size_bytes
    assert rig.hub.read_counts().file_bytes(file="model.bin") == spoiled.size_bytes


def test_a_whole_part_is_hashed_and_published_without_a_question(rig: Rig, folder: Path) -> None:
    plan = rig.plan()
    leave_part(plan, (folder / "model.bin").read_bytes(), journal="2 77 cut sho")
    fetched = rig.fetch(plan)
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert rig.hub.read_counts().file_bytes(file="model.bin") == 0


def test_a_journal_of_the_wrong_bytes_costs_one_more_download(rig: Rig, folder: Path) -> None:
    plan = rig.plan()
    leave_part(plan, bytes(LARGE_BYTES))
    fetched = rig.fetch(plan)
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert rig.hub.read_counts().file_bytes(file="model.bin") == LARGE_BYTES


def test_a_part_longer_than_the_file_is_started_anew(rig: Rig, folder: Path) -> None:
    plan = rig.plan()
    large = next(file for file in plan.blobs if file.size == LARGE_BYTES)
    plan.layout.work.mkdir(parents=True)
    plan.layout.part(large.digest).write_bytes(bytes(LARGE_BYTES + 1))
    assert read_folder(rig.fetch(plan).snapshot_dir) == read_folder(folder)


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(
    rig: Rig, small_disk: Path
) -> None:
    plan = rig.plan(cache_dir=small_disk / "cache")
    rig.hub.reset_counts()
    with pytest.raises(DiskFull, match=r"\d+ bytes are needed in .*, \d+ are free"):
        rig.fetch(plan)
    assert rig.hub.read_counts().requests() == 0


def test_the_room_for_a_file_is_taken_before_its_first_byte(rig: Rig, small_disk: Path) -> None:
    body = os.urandom(DISK_BYTES * 3 // 4)
    rig.hub.add_commit(MODEL, files={"middle.bin": body}, removed=["model.bin", "copy/model.bin"])
    plan = replace(rig.plan(), cache_dir=small_disk)
    filler = small_disk / "filler"

    def fill(_progress: FetchProgress) -> None:
        if not filler.exists():
            with filler.open("wb", buffering=0) as stream:
                written_bytes = stream.write(bytes(DISK_BYTES))
                stream.truncate(written_bytes - 65_536)  # the names of a snapshot need some
            assert written_bytes < DISK_BYTES // 2
            rig.hub.clear_faults(gate)

    gate = rig.hub.add_fault(Stall(after_bytes=1_000_000), path=r"/middle\.bin", origin=Origin.CDN)
    with rig.source(plan) as source:
        fetched = fetch_snapshot(plan, source, on_progress=fill, stop=Event())
    assert (fetched.snapshot_dir / "middle.bin").read_bytes() == body


if __name__ == "__main__":
    main()
