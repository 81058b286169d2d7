"""The fork server: its protocol, its end, and what its handle does when it dies."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.hosts import await_state, connect, make_snapshot, make_spec, runtime_folder
from warmrack_store.errors import HostLost
from warmrack_workers import host_process
from warmrack_workers.host_process import Nursery
from warmrack_workers.nursery import ONE_THREAD
from warmrack_workers.processes import (
    ProcessIdentity,
    find_identity,
    get_identity,
    is_alive,
    kill,
    wait_end,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime_folder() as folder:
        yield folder


def test_nursery_says_when_it_is_ready_has_one_thread_and_ends_with_its_stdin() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "warmrack_workers.nursery"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ONE_THREAD},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first == {"ready": True, "pid": process.pid}
        assert len(os.listdir(f"/proc/{process.pid}/task")) == 1
        process.stdin.write(b'{"fork": 7}\n')
        process.stdin.flush()
        assert "error" in json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.slow
def test_dead_nursery_is_seen_and_started_again_and_its_host_lives_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_process, "RESTART_PAUSE_SECONDS", 0.0)
    spec = make_spec(make_snapshot("tiny_llama", folder / "cache"), folder)
    nursery = Nursery(folder / "nursery.log")
    nursery.start()
    assert nursery.wait_ready(120)
    first = nursery.pid
    assert first is not None
    host = nursery.launch(spec, folder / "spec.json")
    with connect(spec) as client:
        await_state(client, "warm")
        assert kill(get_identity(first))
        assert nursery.wait_ended(10)
        with pytest.raises(HostLost, match="not ready"):
            nursery.fork(folder / "spec.json")
        assert nursery.pid not in (None, first)
        answer = client.post("/tasks/generate", json={"prompt": "fox", "max_tokens": 2})
        assert answer.status_code == 200
        client.post("/drain", json={})
    assert wait_end(host, 10)
    nursery.stop()
    assert nursery.pid is None


@pytest.mark.slow
def test_host_is_spawned_while_the_nursery_is_not_ready(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_process, "READY_PATIENCE_SECONDS", 0.0)
    spec = make_spec(make_snapshot("tiny_llama", folder / "cache"), folder)
    nursery = Nursery(folder / "nursery.log")
    host = nursery.launch(spec, folder / "spec.json")
    parent = Path(f"/proc/{host.pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) == os.getpid()
    with connect(spec) as client:
        assert await_state(client, "warm", "gone")["state"] == "warm"
    nursery.stop()
    assert kill(host)
    assert wait_end(host, 10)


def test_another_process_with_the_same_pid_is_never_killed() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = get_identity(process.pid)
        earlier = ProcessIdentity(pid=identity.pid, start_time=identity.start_time - 1)
        assert not is_alive(earlier)
        assert not kill(earlier)
        assert wait_end(earlier, 0)
        assert is_alive(identity)
        assert not wait_end(identity, 0)
        assert kill(identity)
        assert process.wait(10) == -9


def test_zombie_is_dead_although_its_pid_is_still_taken() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()
        assert find_identity(process.pid) is None
        with pytest.raises(HostLost, match="ended while it started"):
            get_identity(process.pid)
