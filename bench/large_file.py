"""A Hub with one file of 1 GiB, and empty caches to bring it into."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.downloads import REPOSITORY
from tests.hub.control import Hub, running_hub

SIZE_BYTES = 2**30
_BLOCK_BYTES = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeFile:
    hub: Hub
    folder: Path

    @contextmanager
    def empty_cache(self) -> Iterator[Path]:
        cache_dir = self.folder / "cache"
        try:
            yield cache_dir
        finally:
            shutil.rmtree(cache_dir)


@contextmanager
def served_large_file() -> Iterator[LargeFile]:
    """Noise, so that nothing on the way can be sparse or compressed."""
    with tempfile.TemporaryDirectory(prefix="bench-large-") as folder:
        repository = Path(folder) / "repository"
        repository.mkdir()
        with (repository / "model.bin").open("wb") as stream:
            for _ in range(0, SIZE_BYTES, _BLOCK_BYTES):
                stream.write(os.urandom(_BLOCK_BYTES))
        with running_hub({REPOSITORY: repository}) as hub:
            yield LargeFile(hub=hub, folder=Path(folder))
