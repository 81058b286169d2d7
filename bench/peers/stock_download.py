"""Processes of huggingface_hub that each download one repository into a cache of their own."""

import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import sys
from huggingface_hub import snapshot_download
print("ready", flush=True)
sys.stdin.readline()
snapshot_download(sys.argv[1], cache_dir=sys.argv[2], token=False)
"""


class StockDownloads:
    """`count` processes that have imported everything and wait for the start."""

    def __init__(self, count: int, *, endpoint: str, model: str, folder: Path) -> None:
        kept = {name: v for name, v in os.environ.items() if not name.startswith("HF_")}
        environment = {**kept, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", _SCRIPT, model, str(folder / f"stock-{index}")],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for index in range(count)
        ]
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()

    def run(self) -> None:
        """Start all at once; return when the last has ended. ChildProcessError where one failed."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.close()
        codes = []
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.close()
            codes.append(process.wait())
        if any(codes):
            raise ChildProcessError(f"stock downloads ended with {codes}")
