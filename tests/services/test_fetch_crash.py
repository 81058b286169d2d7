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
from warmrack_workers.fetch.fetcher import fetch_snapshot
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
    for at_bytes in (LARGE_BYTES // 3, LARGE_BYTES * 2 // 3):
        # Measured from where the answer starts, so the second stall lies behind the first.
        gate = rig.hub.add_fault(
            Stall(after_bytes=LARGE_BYTES // 3 + 300_000), path=r"/model\.bin", origin=Origin.CDN
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


def test_a_part_that_a_power_cut_spoiled_costs_one_more_download(rig: Rig, folder: Path) -> None:
    plan = rig.plan()
    large = next(file for file in plan.blobs if file.size == LARGE_BYTES)
    plan.layout.work.mkdir(parents=True)
    plan.layout.part(large.digest).write_bytes(bytes(LARGE_BYTES // 2))
    fetched = rig.fetch(plan)
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert fetched.resumed_bytes == 0
    assert rig.hub.read_counts().file_bytes(file="model.bin") == LARGE_BYTES * 3 // 2


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


def test_a_disk_that_fills_up_in_the_middle_keeps_what_arrived_and_goes_on_after(
    rig: Rig, small_disk: Path
) -> None:
    body = os.urandom(DISK_BYTES * 3 // 4)
    rig.hub.add_commit(MODEL, files={"middle.bin": body}, removed=["model.bin", "copy/model.bin"])
    plan = replace(rig.plan(), cache_dir=small_disk)
    filler = small_disk / "filler"

    def fill(_progress: FetchProgress) -> None:
        if not filler.exists():
            with filler.open("wb") as stream, pytest.raises(OSError, match="No space"):
                stream.write(bytes(DISK_BYTES))
            rig.hub.clear_faults(gate)

    gate = rig.hub.add_fault(Stall(after_bytes=1_000_000), path=r"/middle\.bin", origin=Origin.CDN)
    with rig.source(plan) as source, pytest.raises(DiskFull, match="in the middle"):
        fetch_snapshot(plan, source, on_progress=fill, stop=Event())
    filler.unlink()
    fetched = rig.fetch(plan)
    assert (fetched.snapshot_dir / "middle.bin").read_bytes() == body


if __name__ == "__main__":
    main()
