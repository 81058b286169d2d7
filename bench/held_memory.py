"""`python -m bench.held_memory FAMILY FOLDER METHOD`: load a saved model and print what it holds.

A process of its own, so that one load leaves nothing behind for the next.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PLAIN = "bf16"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBytes:
    weights_bytes: int
    state_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.state_bytes


def measure_in_fresh_process(family: str, folder: Path, method: str) -> HeldBytes:
    """Raises CalledProcessError where the load fails."""
    command = [sys.executable, "-m", "bench.held_memory", family, str(folder), method]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return HeldBytes(**json.loads(done.stdout.splitlines()[-1]))


def main(family: str, folder: str, method: str) -> None:
    import torch

    from tests.hub.families import get_class, make_quantization
    from tests.hub.held import read_held

    torch.set_num_threads(1)
    quantizing = {} if method == PLAIN else {"quantization_config": make_quantization(method)}
    model = get_class(family).from_pretrained(folder, dtype=torch.bfloat16, **quantizing)
    held = read_held(model)
    print(json.dumps({"weights_bytes": held.weights_bytes, "state_bytes": held.state_bytes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
