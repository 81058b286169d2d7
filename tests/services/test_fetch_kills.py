"""`kill -9` at random bytes, again and again: nothing partial is visible and little is sent twice."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock

import pytest

from tests.hub.control import CHECKOUT, Hub, running_hub
from tests.hub.faults import Origin, Rate, RateScope
from tests.services.test_fetch_snapshot import MODEL, Rig
from warmrack_store.facts import FileFact
from warmrack_workers.fetch.fetcher import FetchPlan, fetch_snapshot
from warmrack_workers.fetch.hub_source import HubSource

MIB = 2**20
FILE = "model.bin"
RUNS = 50
KILLS_IN_A_ROW = 20
KILL_COSTS_BYTES = 12 * MIB
"""At most: of each of eight pieces what came since its mark, and what was on its way."""
CONNECTION_RATE = 20e6


@dataclass(frozen=True, slots=True)
class DeadlySource:
    """A Hub's source; the process kills itself once so many bytes of files have come."""

    source: HubSource
    after_bytes: int
    lock: Lock

    name = "hub"
    is_peer = False

    @property
    def ranged(self) -> bool:
        return self.source.ranged

    @property
    def received_bytes(self) -> int:
        return self.source.received_bytes

    def interrupt(self) -> None:
        self.source.interrupt()

    @contextmanager
    def open(self, file: FileFact, start: int, end: int) -> Iterator[Iterator[memoryview]]:
        with self.source.open(file, start, end) as chunks:
            yield self._pass(chunks)

    def _pass(self, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        for chunk in chunks:
            if self.source.received_bytes >= self.after_bytes:
                os.kill(os.getpid(), signal.SIGKILL)
            yield chunk


class Forker:
    """A process that has everything imported, and forks one fetch after the other."""

    def __init__(self, rig: Rig) -> None:
        given = json.dumps({"hub": asdict(rig.hub)})
        command = [sys.executable, "-m", "tests.services.test_fetch_kills", given]
        self.process = subprocess.Popen(
            command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, cache_dir: Path, after_bytes: int) -> bool:
        """Whether the fetch came to its end; it is killed after so many bytes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(cache_dir), after_bytes]) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        assert status in (0, -signal.SIGKILL)
        return status == 0

    def close(self) -> None:
        self.process.communicate(timeout=30)


def main() -> None:
    hub = Hub(**json.loads(sys.argv[1])["hub"])
    for line in sys.stdin:
        cache_dir, after_bytes = json.loads(line)
        child = os.fork()
        if not child:
            fetch_or_die(Rig(hub=hub, cache_dir=Path(cache_dir)), after_bytes)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def fetch_or_die(rig: Rig, after_bytes: int) -> None:
    plan = rig.plan()
    with rig.source(plan) as source:
        deadly = DeadlySource(source, after_bytes, Lock())
        fetch_snapshot(plan, deadly, on_progress=lambda _progress: None, stop=Event())


def write_file(folder: Path, size_bytes: int) -> Path:
    """Noise here and there; the rest is sparse, which a copy that is off by a byte still shows."""
    folder.mkdir()
    noise = random.Random(11)
    with (folder / FILE).open("wb") as stream:
        stream.truncate(size_bytes)
        for at in range(0, size_bytes - MIB, MIB):
            stream.seek(at + noise.randrange(MIB))
            stream.write(noise.randbytes(64))
    return folder


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_hub() as hub:
        hub.add_fault(
            Rate(bytes_per_second=CONNECTION_RATE, scope=RateScope.CONNECTION), origin=Origin.CDN
        )
        yield Rig(hub=hub, cache_dir=tmp_path / "cache")


@pytest.fixture
def forker(rig: Rig) -> Iterator[Forker]:
    made = Forker(rig)
    yield made
    made.close()


def assert_nothing_is_visible(plan: FetchPlan) -> None:
    assert not plan.layout.snapshot(plan.commit).exists()
    assert list(plan.layout.blobs.iterdir()) == []


def assert_is_whole(plan: FetchPlan, folder: Path) -> None:
    place = plan.layout.snapshot(plan.commit) / FILE
    subprocess.run(["cmp", str(place), str(folder / FILE)], check=True)
    assert list(plan.layout.work.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kill_at_any_byte_costs_at_most_a_tenth(rig: Rig, forker: Forker, tmp_path: Path) -> None:
    size_bytes = 256 * MIB + 12_345
    folder = write_file(tmp_path / "repository", size_bytes)
    rig.hub.add_repository(MODEL, folder)
    chance = random.Random(20260101)
    for run in range(RUNS):
        cache_dir = tmp_path / f"cache-{run}"
        plan = Rig(hub=rig.hub, cache_dir=cache_dir).plan()
        rig.hub.reset_counts()
        assert not forker.run(cache_dir, chance.randrange(1, size_bytes - MIB))
        assert_nothing_is_visible(plan)
        assert forker.run(cache_dir, 2 * size_bytes)
        assert_is_whole(plan, folder)
        assert rig.hub.read_counts().file_bytes() <= 1.1 * size_bytes, f"run {run}"
        subprocess.run(["rm", "-r", str(cache_dir)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fetch_that_is_killed_twenty_times_in_a_row_ends_right(
    rig: Rig, forker: Forker, tmp_path: Path
) -> None:
    size_bytes = 320 * MIB
    folder = write_file(tmp_path / "repository", size_bytes)
    rig.hub.add_repository(MODEL, folder)
    plan = rig.plan()
    rig.hub.reset_counts()
    for _ in range(KILLS_IN_A_ROW):
        assert not forker.run(rig.cache_dir, size_bytes // (KILLS_IN_A_ROW + 1))
        assert_nothing_is_visible(plan)
    assert forker.run(rig.cache_dir, 2 * size_bytes)
    assert_is_whole(plan, folder)
    sent_bytes = rig.hub.read_counts().file_bytes()
    assert sent_bytes <= size_bytes + KILLS_IN_A_ROW * KILL_COSTS_BYTES


if __name__ == "__main__":
    main()
