"""A fresh Python that loads a model and its tokenizer, as a script without any server would."""

import os
import subprocess
import sys
import time
from pathlib import Path

_LOADED = "loaded"
_SCRIPT = f"""
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto").eval()
print({_LOADED!r}, flush=True)
sys.stdin.read()
"""


def time_fresh_load(folder: Path) -> float:
    """Seconds from the start of the process until it says that both are loaded.

    Its end is not counted. Raises ChildProcessError where it ends without having loaded them.
    """
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(folder)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline().strip()
            seconds = time.perf_counter() - started
        finally:
            process.kill()
    if said != _LOADED:
        raise ChildProcessError("the fresh Python did not load the model")
    return seconds
