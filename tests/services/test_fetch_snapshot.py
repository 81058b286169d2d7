"""Whole snapshots from a real Hub, seen afterwards by stock clients."""

import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from huggingface_hub import snapshot_download
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from tests.hub.control import Hub, Served, running_hub
from tests.hub.faults import Stall
from tests.hub.models import get_model_folder
from warmrack_store.errors import Integrity, RepoNotFound, UnsafeFormat
from warmrack_store.facts import FileFact
from warmrack_store.tensors import root_digest
from warmrack_workers.fetch.fetcher import FetchedSnapshot, FetchPlan, fetch_snapshot
from warmrack_workers.fetch.hub_source import HubSource
from warmrack_workers.fetch.patience import Patience
from warmrack_workers.fetch.tally import FetchProgress

MODEL = "acme/model"
LARGE_BYTES = 12_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """A Hub with one repository, and an empty cache."""

    hub: Hub
    cache_dir: Path

    def plan(self, **changes: Any) -> FetchPlan:
        commit = self.hub.get_commit(MODEL).sha
        files = list_facts(self.hub, commit, changes.pop("token", None))
        plan = FetchPlan(
            cache_dir=self.cache_dir,
            repository=MODEL,
            commit=commit,
            ref="main",
            files=files,
            tree=files,
            public=True,
        )
        return replace(plan, **changes)

    def source(self, plan: FetchPlan, **options: Any) -> HubSource:
        settings = {"endpoint": self.hub.url, "token": None, **options}
        return HubSource(repository=plan.repository, commit=plan.commit, **settings)

    def fetch(
        self, plan: FetchPlan | None = None, *, stop: Event | None = None, **options: Any
    ) -> FetchedSnapshot:
        plan = plan or self.plan()
        limits = {name: options.pop(name) for name in ("timeout_seconds",) if name in options}
        with self.source(plan, **options) as source:
            return fetch_snapshot(
                plan,
                source,
                on_progress=lambda _progress: None,
                stop=stop or Event(),
                patience=Patience(first_seconds=0.02, longest_seconds=5.0),
                **limits,
            )


def list_facts(
    hub: Hub, commit: str, token: str | None = None, *, model: str = MODEL
) -> tuple[FileFact, ...]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    tree = httpx.get(f"{hub.url}/api/models/{model}/tree/{commit}?recursive=true", headers=headers)
    return tuple(
        FileFact(
            path=entry["path"],
            size=entry["size"],
            git_sha1=entry["oid"],
            sha256=entry.get("lfs", {}).get("oid"),
        )
        for entry in tree.raise_for_status().json()
        if entry["type"] == "file"
    )


def write_repository(folder: Path) -> Path:
    """One large file of noise, the same on every run, and small ones of every kind."""
    noise = random.Random(7).randbytes(LARGE_BYTES)
    bodies = {
        "model.bin": noise,
        "copy/model.bin": noise,
        "config.json": b'{"model_type": "none"}',
        "empty.txt": b"",
        "notes/with space #1.md": b"# notes",
    }
    for path, body in bodies.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    return folder


def list_lingering_threads() -> list[str]:
    """Threads of a fetch that has ended, those left out that end within two seconds."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("fetch_")]
    for thread in threads:
        thread.join(timeout=2)
    return [thread.name for thread in threads if thread.is_alive()]


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def rig(hub: Hub, folder: Path, tmp_path: Path) -> Rig:
    hub.add_repository(MODEL, folder)
    hub.clear_faults()
    hub.reset_counts()
    return Rig(hub=hub, cache_dir=tmp_path / "cache")


def test_every_file_arrives_and_equal_ones_are_downloaded_once(rig: Rig, folder: Path) -> None:
    fetched = rig.fetch()
    bodies = read_folder(folder)
    assert read_folder(fetched.snapshot_dir) == bodies
    distinct_bytes = sum(map(len, set(bodies.values())))
    assert fetched.hub_bytes == distinct_bytes == rig.hub.read_counts().file_bytes()
    assert {file.path: file.size_bytes for file in fetched.files} == {
        path: len(body) for path, body in bodies.items()
    }


def test_a_second_fetch_asks_the_hub_for_nothing(rig: Rig) -> None:
    first = rig.fetch()
    rig.hub.reset_counts()
    plan = rig.plan()
    second = rig.fetch(plan)
    assert second.files == first.files
    assert (second.hub_bytes, second.local_bytes) == (0, first.hub_bytes)
    third = rig.fetch(replace(plan, known=second.files))
    assert (third.files, third.hub_bytes) == (second.files, 0)
    assert rig.hub.read_counts().requests(path="resolve") == 0


def test_progress_ends_at_the_total_and_is_told_in_the_callers_thread(rig: Rig) -> None:
    seen: list[FetchProgress] = []
    plan = rig.plan()
    with rig.source(plan) as source:
        fetch_snapshot(plan, source, on_progress=seen.append, stop=Event())
    total = sum(file.size for file in plan.blobs)
    assert seen[-1] == FetchProgress(bytes_done=total, bytes_total=total)
    assert all(early.bytes_done <= late.bytes_done for early, late in pairwise(seen))


def test_an_error_of_who_watches_ends_the_fetch(rig: Rig) -> None:
    plan = rig.plan()
    rig.hub.add_fault(Stall(after_bytes=1000), path=r"model\.bin")

    def lost_claim(_progress: FetchProgress) -> None:
        raise RuntimeError("the claim is lost")

    with rig.source(plan) as source, pytest.raises(RuntimeError, match="claim is lost"):
        fetch_snapshot(plan, source, on_progress=lost_claim, stop=Event())
    assert not plan.layout.snapshot(plan.commit).exists()


def test_a_stock_download_afterwards_makes_no_request_by_commit_and_one_by_branch(
    rig: Rig,
) -> None:
    plan = rig.plan()
    rig.fetch(plan)
    rig.hub.reset_counts()
    options: dict[str, Any] = {"cache_dir": rig.cache_dir, "endpoint": rig.hub.url, "token": False}
    snapshot_download(MODEL, revision=plan.commit, **options)
    assert rig.hub.read_counts().requests() == 0
    snapshot_download(MODEL, **options)
    assert rig.hub.read_counts().requests() == 1


def test_a_stock_client_running_at_the_same_time_waits_and_downloads_nothing_twice(
    rig: Rig, tmp_path: Path
) -> None:
    plan = replace(rig.plan(), files=tuple(f for f in rig.plan().files if f.path == "model.bin"))
    gate = rig.hub.add_fault(Stall(after_bytes=LARGE_BYTES // 2), path=r"/model\.bin", times=1)
    rig.hub.reset_counts()
    script = (
        "import sys; from huggingface_hub import hf_hub_download as load;"
        f"print(load({MODEL!r}, 'model.bin', cache_dir=sys.argv[1], endpoint=sys.argv[2]))"
    )
    started: list[subprocess.Popen[str]] = []

    def start_stock_client(progress: FetchProgress) -> None:
        """Once our download stands still in the middle; let it go on when the other has asked."""
        if not started and progress.bytes_done >= LARGE_BYTES // 2:
            command = [sys.executable, "-c", script, str(rig.cache_dir), rig.hub.url]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            rig.hub.wait_for(requests=1, method="HEAD", timeout_seconds=60)
            rig.hub.clear_faults(gate)

    with rig.source(plan) as source:
        fetch_snapshot(plan, source, on_progress=start_stock_client, stop=Event())
    (stock,) = started
    out, _ = stock.communicate(timeout=60)
    assert (
        Path(out.strip()).read_bytes()
        == (plan.layout.snapshot(plan.commit) / "model.bin").read_bytes()
    )
    assert rig.hub.read_counts().file_bytes() == LARGE_BYTES


def test_a_blob_that_a_stock_client_finishes_meanwhile_is_hashed_and_used(
    rig: Rig, folder: Path
) -> None:
    plan = rig.plan()
    large = next(file for file in plan.files if file.path == "model.bin")
    layout = plan.layout
    for made in (layout.locks, layout.blobs):
        made.mkdir(parents=True)
    held = WeakFileLock(layout.lock(large.digest))
    held.__enter__()
    released = False

    def finish(progress: FetchProgress) -> None:
        nonlocal released
        if not released and progress.bytes_done > 0:
            shutil.copy(folder / "model.bin", layout.blob(large.digest))
            held.__exit__(None, None, None)
            released = True

    with rig.source(plan) as source:
        fetched = fetch_snapshot(plan, source, on_progress=finish, stop=Event())
    assert (fetched.local_bytes, fetched.hub_bytes) == (LARGE_BYTES, 22 + 7)


def test_a_wrong_blob_is_moved_aside_and_whoever_has_it_open_keeps_its_bytes(rig: Rig) -> None:
    plan = rig.plan()
    rig.fetch(plan)
    blob = plan.layout.blob(next(f for f in plan.files if f.path == "model.bin").digest)
    wrong = b"\x00" + blob.read_bytes()[1:]
    blob.write_bytes(wrong)
    with blob.open("rb") as reader:
        fetched = rig.fetch(plan)
        assert reader.read() == wrong
    assert fetched.hub_bytes == LARGE_BYTES
    assert [bad.read_bytes() for bad in plan.layout.work.glob("*.bad")] == [wrong]
    assert blob.read_bytes() != wrong


def test_a_blob_that_is_a_link_out_of_the_cache_is_refused_and_not_touched(
    rig: Rig, tmp_path: Path, folder: Path
) -> None:
    plan = rig.plan()
    large = next(file for file in plan.files if file.path == "model.bin")
    plan.layout.blobs.mkdir(parents=True)
    plan.layout.blob(large.digest).symlink_to(folder / "model.bin")
    with pytest.raises(Integrity, match="out of the cache"):
        rig.fetch(plan)
    assert plan.layout.blob(large.digest).is_symlink()


def test_a_private_repository_needs_the_callers_own_token(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.hub.add_repository(MODEL, Served(folder=folder, private=True, tokens=("hf_reader",)))
    plan = rig.plan(token="hf_reader", public=False)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(RepoNotFound):
        rig.fetch(plan)
    assert not any(seen.has_token for seen in rig.hub.list_requests(path="resolve"))
    rig.hub.reset_counts()
    fetched = rig.fetch(plan, token="hf_reader")
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    asked = rig.hub.list_requests(method="GET")
    assert {seen.has_token for seen in asked if seen.origin == "hub"} == {True}
    assert {seen.has_token for seen in asked if seen.origin == "cdn"} == {False}
    assert plan.layout.blobs.stat().st_mode & 0o077 == 0


def test_the_leaves_of_a_sharded_model_give_the_root_of_the_same_model_in_one_file(
    rig: Rig,
) -> None:
    roots = []
    for name in ("tiny_llama", "tiny_llama_sharded"):
        rig.hub.add_repository(MODEL, get_model_folder(name))
        leaves = rig.fetch().leaves.values()
        roots.append(root_digest({leaf.name: leaf.leaf for file in leaves for leaf in file}))
    assert roots[0] == roots[1]


def test_leaves_that_the_caller_has_are_not_hashed_again(rig: Rig) -> None:
    rig.hub.add_repository(MODEL, get_model_folder("tiny_llama"))
    plan = rig.plan()
    first = rig.fetch(plan)
    again = rig.fetch(replace(plan, known=first.files, leaves_known=frozenset(first.leaves)))
    assert len(first.leaves) == 1
    assert again.leaves == {}


def test_a_file_that_only_claims_to_be_safetensors_is_named_and_not_published(rig: Rig) -> None:
    rig.hub.add_commit(MODEL, files={"weights.safetensors": b"not at all"})
    plan = rig.plan()
    with pytest.raises(UnsafeFormat, match=r"weights\.safetensors"):
        rig.fetch(plan)
    assert not plan.layout.snapshot(plan.commit).exists()


@pytest.mark.slow
def test_transformers_loads_offline_what_was_fetched(rig: Rig) -> None:
    rig.hub.add_repository(MODEL, get_model_folder("tiny_llama"))
    rig.fetch()
    script = (
        "import json; from transformers import AutoModelForCausalLM as Model, AutoTokenizer as T;"
        f"model = Model.from_pretrained({MODEL!r}); tokenizer = T.from_pretrained({MODEL!r});"
        "ids = tokenizer('hello', return_tensors='pt').input_ids;"
        "print(json.dumps(list(model(ids).logits.shape)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"HF_HUB_CACHE": str(rig.cache_dir), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert len(json.loads(done.stdout)) == 3
