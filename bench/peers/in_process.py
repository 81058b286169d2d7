"""The model in one Python process, called without any server.

`python -m bench.peers.in_process FOLDER THREADS` answers, on stdout, each line of stdin that holds
`{"prompt", "whole"}` by the seconds from that text to the text of the first token: by a bare
forward pass, or (`whole`) by the library's own `generate`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    seconds: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessModel:
    """The handle of such a process."""

    process: subprocess.Popen[str]

    def call(self, prompt: str, *, whole: bool = False) -> FirstToken:
        """Raises ChildProcessError where it has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"prompt": prompt, "whole": whole}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise ChildProcessError("the process with the model has ended")
        return FirstToken(**json.loads(line))


@contextmanager
def running_model(folder: Path, *, threads: int) -> Iterator[InProcessModel]:
    command = [sys.executable, "-m", "bench.peers.in_process", str(folder), str(threads)]
    with subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield InProcessModel(process=process)
        finally:
            process.kill()


def _serve(folder: str, threads: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    for line in sys.stdin:
        asked = json.loads(line)
        call = _generate_one if asked["whole"] else _forward
        started = time.perf_counter()
        with torch.inference_mode():
            token = call(model, tokenizer(asked["prompt"], return_tensors="pt"))
        text = tokenizer.decode([token], skip_special_tokens=True)
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "text": text}), flush=True)


def _forward(model: Any, inputs: Any) -> int:
    """The least that a first token can cost: one pass that fills a cache, and the greedy choice."""
    outputs = model(input_ids=inputs["input_ids"], use_cache=True, logits_to_keep=1)
    return int(outputs.logits[0, -1].argmax())


def _generate_one(model: Any, inputs: Any) -> int:
    return int(model.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1])


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
