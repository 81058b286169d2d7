"""What the residency loop causes, on real processes: watched, killed, found again, let go."""

import asyncio
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.services import fake_host
from tests.services.hosts import make_snapshot, make_spec, runtime_folder
from tests.services.residing import put_resident
from tests.services.stores import Store
from warmrack_store.errors import Defect, HostLost
from warmrack_store.ledgers import residents
from warmrack_store.states import ResidentState
from warmrack_workers import effects as effects_module
from warmrack_workers.adoption import adopt_hosts
from warmrack_workers.effects import HostEffects
from warmrack_workers.host_process import Nursery
from warmrack_workers.host_server import serve
from warmrack_workers.host_spec import HostSpec, write_spec
from warmrack_workers.orders import Event, HostEnded, Seen
from warmrack_workers.processes import ProcessIdentity, get_identity, is_alive, wait_end

_SECONDS = 30.0
_BIG_BYTES = 500_000_000
"""So much that the kernel takes a while to free it."""


class Rig:
    """A runtime folder, fake hosts in it, and effects whose events are kept."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.events: queue.Queue[Event] = queue.Queue()
        self.heard: list[Callable[[Event], None]] = [self.events.put]
        self._reap = ExitStack()
        self._snapshot = make_snapshot("tiny_llama", folder / "cache")
        self.nursery = Nursery(folder / "nursery.log")
        self.effects = HostEffects(
            database=store.database,
            nursery=self.nursery,
            cache_dir=folder / "cache",
            runtime_dir=folder,
            epoch=1,
            threads=1,
            post=self._post,
        )

    def _post(self, event: Event) -> None:
        for hear in self.heard:
            hear(event)

    def spec(self, seat_id: str) -> HostSpec:
        return make_spec(
            self._snapshot,
            self.folder,
            resident_id=seat_id,
            socket_path=self.folder / f"{seat_id}.sock",
        )

    def spec_path(self, seat_id: str) -> Path:
        return self.folder / f"{seat_id}.json"

    def leave(self, seat_id: str, *options: str) -> ProcessIdentity:
        """A host that a former agent has left running, its spec beside its socket."""
        spec = self.spec(seat_id)
        write_spec(spec, self.spec_path(seat_id))
        process = subprocess.Popen(
            [sys.executable, fake_host.__file__, str(spec.socket_path), seat_id, *options],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        with process.stdout as lines:
            assert lines.readline() == b"listens\n"
        self._reap.callback(process.wait)
        self._reap.callback(process.kill)
        return get_identity(process.pid)

    def adopt(self, seat_id: str) -> None:
        """Find what was left running and watch it; returns when it was seen."""
        for spec, status in self.effects.find_left_running():
            if spec.resident_id == seat_id:
                self.effects.adopt(spec, status)
        self.await_event(Seen)

    def await_event(self, kind: type[Event]) -> Event:
        while not isinstance(event := self.events.get(timeout=_SECONDS), kind):
            pass
        return event

    def close(self) -> None:
        self._reap.close()


@pytest.fixture
def rig(sqlite: Store) -> Iterator[Rig]:
    with runtime_folder() as folder:
        made = Rig(folder, sqlite)
        yield made
        made.close()


def test_the_end_of_a_killed_host_is_told_when_its_memory_is_free(rig: Rig) -> None:
    host = rig.leave("r1", "--bytes", str(_BIG_BYTES))
    rig.adopt("r1")
    gone: list[bool] = []
    rig.heard.insert(0, lambda event: gone.append(wait_end(host, 0.0)))
    rig.effects.kill("r1")
    rig.await_event(HostEnded)
    assert gone[-1]


def test_a_host_that_a_former_agent_left_is_taken_over(rig: Rig, sqlite: Store) -> None:
    host = rig.leave("r1")
    put_resident(sqlite.database, "n0", id="r1", pid=host.pid, start_time=host.start_time)
    adopted = adopt_hosts(sqlite.database, rig.effects, node="n0")
    assert list(adopted) == ["r1"]
    rig.await_event(Seen)
    assert is_alive(host)
    rig.effects.kill("r1")
    rig.await_event(HostEnded)


@pytest.mark.parametrize("spec", ["{}", None], ids=["of another version", "missing"])
@pytest.mark.parametrize("answers", ["1000", "0"], ids=["answers", "hangs"])
def test_a_host_that_cannot_be_adopted_is_killed_by_its_row(
    rig: Rig, sqlite: Store, spec: str | None, answers: str
) -> None:
    host = rig.leave("r1", "--answers", answers)
    put_resident(sqlite.database, "n0", id="r1", pid=host.pid, start_time=host.start_time)
    rig.spec_path("r1").unlink()
    if spec is not None:
        rig.spec_path("r1").write_text(spec)
    assert adopt_hosts(sqlite.database, rig.effects, node="n0") == {}
    assert wait_end(host, 0.0)
    assert list(rig.folder.glob("r1.*")) == []
    with sqlite.database.read() as tx:
        assert residents.list_live(tx, node="n0") == []
        found = residents.find_resident(tx, "r1")
    assert found is not None
    assert (found.state, found.cause) == (ResidentState.GONE, "agent-restarted")


def test_a_host_without_a_row_and_with_a_spec_of_another_version_is_ended(rig: Rig) -> None:
    host = rig.leave("r1")
    rig.spec_path("r1").write_text("{}")
    assert list(rig.effects.find_left_running()) == []
    assert wait_end(host, 0.0)


def test_a_host_that_finds_its_spec_gone_when_it_listens_ends(rig: Rig) -> None:
    with pytest.raises(Defect, match="nobody wants"):
        asyncio.run(serve(rig.spec("r1"), rig.spec_path("r1")))
    assert not rig.spec("r1").socket_path.exists()


def test_a_host_that_no_longer_answers_is_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects_module, "SILENCE_SECONDS", 0.2)
    host = rig.leave("r1", "--answers", "2")
    rig.adopt("r1")
    ended = rig.await_event(HostEnded)
    assert isinstance(ended, HostEnded)
    assert isinstance(ended.error, HostLost)
    assert wait_end(host, 0.0)
