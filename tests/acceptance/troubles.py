"""What befalls a running pool: real faults, each in force for as long as its block lasts."""

import os
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

import httpx
import psutil
import pytest

import warmrack
from tests.acceptance.stack import Stack, wait_until
from tests.hub.faults import CorruptByte, Origin, Stall

Trouble = Callable[[Stack, str], AbstractContextManager[None]]
"""For a pool and the name of a model."""

_BODY_BYTES = 200_000
"""Past every header that facts are read from, and inside the weights of the tiny models."""
_SPARE_BYTES = 100 * 2**20
"""What a host may take beside what its nursery has: enough to start, not for a real model."""
_POISON_DEATHS = 3


def none(_pool: Stack, _model: str) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def corrupt_byte(pool: Stack, model: str) -> Iterator[None]:
    """The Hub's copy of the weights is broken."""
    fault = CorruptByte(offset_bytes=_BODY_BYTES)
    number = pool.hub.add_fault(fault, path=f"/{model}/", origin=Origin.CDN)
    try:
        yield
    finally:
        pool.hub.clear_faults(number)


@contextmanager
def stalled(pool: Stack, model: str) -> Iterator[None]:
    """The Hub says nothing more after some bytes of the weights."""
    fault = Stall(after_bytes=_BODY_BYTES)
    number = pool.hub.add_fault(fault, path=f"/{model}/", origin=Origin.CDN)
    try:
        yield
    finally:
        pool.hub.clear_faults(number)


@contextmanager
def cancelled(pool: Stack, model: str) -> Iterator[None]:
    """Somebody cancels the job once its bytes arrive."""

    def cancel() -> None:
        with pool.client() as client:
            for job in wait_until("bytes to arrive", lambda: _list_fetching(client, model)):
                client.cancel(job.id)

    with stalled(pool, model), _meanwhile(cancel):
        yield


def _list_fetching(client: warmrack.Client, model: str) -> list[warmrack.Job]:
    found = client.jobs(model=model, state="fetching")
    return [job for job in found if job.progress.bytes_done]


@contextmanager
def agent_stopped(pool: Stack, _model: str) -> Iterator[None]:
    """The only node hears no bell."""
    agent = pool.find_pid("node-0")
    os.kill(agent, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(agent, signal.SIGCONT)


@contextmanager
def hosts_killed_while_loading(pool: Stack, model: str) -> Iterator[None]:
    """Each host that loads the model is killed, until one load has cost too many."""
    pool.run("unload", model)

    def kill_each() -> None:
        killed: set[int] = set()
        with pool.client() as client:

            def find_new() -> int | None:
                pids = [r.pid for r in client.residents() if r.model == model and r.pid]
                return next((pid for pid in pids if pid not in killed), None)

            while len(killed) < _POISON_DEATHS:
                pid = wait_until("a host that loads", find_new)
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    with _meanwhile(kill_each):
        yield


@contextmanager
def host_killed_at_work(pool: Stack, model: str) -> Iterator[None]:
    """The warm host of the model is killed once it has something to do."""
    with pool.client() as client:
        client.wait(client.load(model).id, timeout_seconds=90)

    def kill() -> None:
        with pool.client() as client:

            def find_busy() -> int | None:
                busy = [r.pid for r in client.residents() if r.model == model and r.leases]
                return busy[0] if busy else None

            pid = wait_until("a host at work", find_busy)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    with _meanwhile(kill):
        yield


@contextmanager
def little_memory(pool: Stack, model: str) -> Iterator[None]:
    """Hosts are forked with a limit that the estimate knows nothing of."""
    pool.run("unload", model)
    nursery = next(
        process
        for process in pool.list_processes()
        if "warmrack_workers.nursery" in process.cmdline()
    )
    before = nursery.rlimit(psutil.RLIMIT_DATA)
    limit = nursery.memory_info().data + _SPARE_BYTES
    nursery.rlimit(psutil.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        nursery.rlimit(psutil.RLIMIT_DATA, before)


@contextmanager
def folder_in_the_way(pool: Stack, model: str) -> Iterator[None]:
    """The file that names the branch's commit in the cache is a folder."""
    place = pool.cache_dir / f"models--{model.replace('/', '--')}" / "refs" / "main"
    place.mkdir(parents=True)
    try:
        yield
    finally:
        place.rmdir()


@contextmanager
def table_missing(pool: Stack, _model: str) -> Iterator[None]:
    """The database is there, and not what it should be."""
    with closing(sqlite3.connect(pool.state_dir / "warmrack.db", timeout=30)) as database:
        database.execute("ALTER TABLE jobs RENAME TO jobs_away")
        database.commit()
        try:
            yield
        finally:
            database.execute("ALTER TABLE jobs_away RENAME TO jobs")
            database.commit()


def job_held(other: str) -> Trouble:
    """Another job is at work; the Hub does not answer it."""

    @contextmanager
    def held(pool: Stack, _model: str) -> Iterator[None]:
        gate = pool.hub.add_fault(Stall(), path=f"/api/models/{other}")
        with pool.client() as client:
            job = client.prefetch(other)
            try:
                wait_until("the job to be held", lambda: client.job(job.id).state == "resolving")
                yield
            finally:
                client.cancel(job.id)
                pool.hub.clear_faults(gate)
            wait_until("its end", lambda: client.job(job.id).state.terminal)

    return held


def job_waiting(other: str) -> Trouble:
    """Another job waits, and nobody takes it."""

    @contextmanager
    def waiting(pool: Stack, model: str) -> Iterator[None]:
        with pool.client() as client, agent_stopped(pool, model):
            job = client.prefetch(other)
            try:
                yield
            finally:
                client.cancel(job.id)

    return waiting


def key_used(key: str) -> Trouble:
    """The idempotency key stands for another job already."""

    @contextmanager
    def used(pool: Stack, model: str) -> Iterator[None]:
        body = {"kind": "prefetch", "request": {"model": model}, "priority": "background"}
        headers = {"Idempotency-Key": key}
        answer = httpx.post(f"{pool.url}/api/v1/jobs", json=body, headers=headers, timeout=30)
        assert answer.status_code == 202, answer.text
        yield

    return used


@contextmanager
def small_disk(size_bytes: int) -> Iterator[Path]:
    """A file system of its own that is full after so many bytes; skips where none may be mounted."""
    disk = Path(tempfile.mkdtemp(prefix="warmrack-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(disk)]
    try:
        if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk is not allowed here")
        yield disk
        subprocess.run(["umount", str(disk)], check=True)
    finally:
        disk.rmdir()


@contextmanager
def _meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """`act` beside the block; its failure is the test's."""
    with ThreadPoolExecutor(1) as threads:
        acting = threads.submit(act)
        yield
        acting.result()
