"""CUDA devices, asked of the driver's own tool, so that the agent needs no torch."""

import shutil
import subprocess

_TOOL = "nvidia-smi"
_TIMEOUT_SECONDS = 10


def free_bytes_by_index() -> dict[int, int]:
    """Free memory by device index, what foreign processes hold left out; empty without a driver."""
    tool = shutil.which(_TOOL)
    if tool is None:
        return {}
    command = [tool, "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return {}
    return parse_free(answer.stdout)


def parse_free(text: str) -> dict[int, int]:
    """The tool's lines `0, 40536` (MiB)."""
    rows = (line.split(",") for line in text.splitlines() if line.strip())
    return {int(index): int(free) * 2**20 for index, free in rows}
