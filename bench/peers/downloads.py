"""One repository brought into an empty cache, by warmrack's fetcher or by huggingface_hub.

`python -m bench.peers.downloads TOOL HUB_URL CACHE` prints `{"seconds", "cpu_seconds"}`: from the call
to the snapshot on disk, imports left out on both sides.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
REPOSITORY = "bench/large"


class Tool(StrEnum):
    OURS = "warmrack"
    STOCK = "huggingface_hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    seconds: float
    cpu_seconds: float


def start_download(tool: Tool, hub_url: str, cache_dir: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "bench.peers.downloads", tool.value, hub_url, str(cache_dir)],
        cwd=CHECKOUT,
        env={
            **os.environ,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def download(tool: Tool, hub_url: str, cache_dir: Path) -> Download:
    """Raises ChildProcessError where the tool fails."""
    with start_download(tool, hub_url, cache_dir) as process:
        out, _ = process.communicate()
    if process.returncode:
        raise ChildProcessError(f"{tool} ended with {process.returncode}")
    return Download(**json.loads(out))


def main() -> None:
    tool, hub_url, cache_dir = Tool(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    make_call = {Tool.OURS: _make_ours, Tool.STOCK: _make_stock}[tool]
    call = make_call(hub_url, cache_dir)
    cpu_before, started = _cpu_seconds(), time.perf_counter()
    call()
    seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - cpu_before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}))


def _make_stock(hub_url: str, cache_dir: Path) -> Callable[[], Any]:
    import huggingface_hub

    load = huggingface_hub.snapshot_download
    return lambda: load(REPOSITORY, cache_dir=cache_dir, endpoint=hub_url, token=False)


def _make_ours(hub_url: str, cache_dir: Path) -> Callable[[], Any]:
    """The facts are asked for within, as the stock client asks for them too."""
    from warmrack_store.hub import HubFacts
    from warmrack_store.refs import ModelRef
    from warmrack_workers.fetch.fetcher import FetchPlan, fetch_snapshot
    from warmrack_workers.fetch.hub_source import HubSource

    facts = HubFacts(hub_url)

    def call() -> None:
        ref = facts.find_ref(ModelRef(repository=REPOSITORY), None)
        found = facts.get_facts(ref, None)
        plan = FetchPlan(
            cache_dir=cache_dir,
            repository=REPOSITORY,
            commit=found.commit,
            ref="main",
            files=found.files,
            tree=found.files,
            public=True,
        )
        with HubSource(
            endpoint=hub_url, repository=REPOSITORY, commit=found.commit, token=None
        ) as source:
            fetch_snapshot(plan, source, on_progress=lambda _progress: None, stop=Event())

    return call


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
