"""The test Hub's Xet storage: the stock client takes LFS files from it, and only those."""

import os
import subprocess
import sys
from pathlib import Path

from tests.hub.control import Served, running_hub
from tests.hub.faults import Origin
from tests.hub.models import get_model_folder

NAME = "org/model"
DOWNLOAD = "import huggingface_hub as h; print(h.snapshot_download('org/model'))"


def test_the_stock_client_takes_weights_by_xet(tmp_path: Path) -> None:
    folder = get_model_folder("tiny_llama")
    with running_hub({NAME: Served(folder=folder)}) as hub:
        hub.serve_xet(tmp_path / "store")
        places = {"HF_HUB_CACHE": "cache", "HF_XET_CACHE": "chunks", "HF_HOME": "home"}
        environment = {name: str(tmp_path / place) for name, place in places.items()}
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOAD],
            env={**os.environ, **environment, "HF_ENDPOINT": hub.url},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        counts = hub.read_counts()
    snapshot = Path(done.stdout.strip())
    weights = (snapshot / "model.safetensors").read_bytes()
    assert weights == (folder / "model.safetensors").read_bytes()
    assert counts.requests(path="xet-read-token") == 1
    assert counts.requests(origin=Origin.CDN) == 0
