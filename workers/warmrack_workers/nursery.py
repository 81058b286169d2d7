"""The fork server: a process that has torch and transformers warm, and forks hosts from itself.

Run by the agent as `python -m warmrack_workers.nursery`. One JSON line a request on stdin,
`{"fork": "/path/spec.json"}`; one line an answer on stdout, `{"pid", "start_time"}` or `{"error"}`.
The first line, `{"ready": true, "pid"}`, comes when the code paths of a load and a generation have
run once. It ends with its stdin. host-design.md says what makes a fork of it safe.
"""

import gc
import importlib
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

from warmrack_store.errors import WarmrackError
from warmrack_workers.backends import get_entry
from warmrack_workers.host_spec import read_spec
from warmrack_workers.processes import get_identity

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""The environment it must be started with: with two threads a forked child hung every time."""

_SETTLE_SECONDS = 10.0
_CUDA_CONTROL = Path("/dev/nvidiactl")
"""There where a driver is loaded."""


def main() -> None:
    answers = _claim_stdout()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s nursery %(levelname)s %(message)s")
    # The kernel reaps the hosts; who wants to know of their end asks for pid and start time.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    exercise()
    gc.collect()
    gc.freeze()
    _answer(answers, {"ready": True, "pid": os.getpid()})
    for line in sys.stdin.buffer:
        _answer(answers, _serve(line))


def exercise() -> None:
    """Run the code of a load and of a generation once, on a tiny model, so that forks find every
    lazy import done. Leaves one thread. Raises RuntimeError where others stay or CUDA came up."""
    import torch
    import transformers
    from tqdm import tqdm  # type: ignore[import-untyped]

    from warmrack_workers import host, host_server  # noqa: F401
    from warmrack_workers.downstream import list_tasks

    # tqdm starts a monitor thread with the first progress bar.
    tqdm.monitor_interval = 0
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    list_tasks()
    with tempfile.TemporaryDirectory(prefix="warmrack-nursery-") as folder:
        _load_and_generate(Path(folder))
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RuntimeError("the nursery has touched CUDA; its forks could not use it")
    _wait_alone()


def _load_and_generate(folder: Path) -> None:
    import torch
    import transformers

    from warmrack_workers.batcher import GenerationRequest
    from warmrack_workers.checkpoint_map import map_checkpoint
    from warmrack_workers.evidence import list_added_tokens, list_config_changes
    from warmrack_workers.sequence import Sequence
    from warmrack_workers.tensor_proofs import leaf_of

    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    _tiny_tokenizer().save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    tokenizer("ab")
    model = transformers.LlamaForCausalLM.from_pretrained(str(folder), local_files_only=True)
    held = model.state_dict()
    map_checkpoint(model, held, held)
    leaf_of(next(iter(held.values())))
    list_config_changes(folder, model.config)
    list_added_tokens(folder, tokenizer)
    with torch.inference_mode():
        request = GenerationRequest(prompt=(1, 2, 3), max_tokens=3, temperature=1.0)
        list(Sequence(model, request).tokens())


def _tiny_tokenizer() -> Any:
    import tokenizers
    import transformers

    model = tokenizers.models.BPE(vocab={"a": 0, "b": 1}, merges=[])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _wait_alone() -> None:
    """Until the threads of the exercise have ended: a fork copies only the calling one, and locks
    that another holds stay locked in it for ever."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (count := len(os.listdir("/proc/self/task"))) > 1:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the nursery keeps {count} threads; a fork of it could hang")
        time.sleep(0.005)


def _serve(line: bytes) -> dict[str, object]:
    try:
        spec_path = Path(json.loads(line)["fork"])
        spec = read_spec(spec_path)
        _import_library(get_entry(spec.backend).library)
        _import_library("peft" if spec.adapter is not None else None)
        _wait_alone()
        identity = get_identity(_fork(spec_path))
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, WarmrackError) as error:
        logging.exception("a fork failed", extra={"action": "fork-failed"})
        return {"error": str(error)}
    return {"pid": identity.pid, "start_time": identity.start_time}


def _import_library(library: str | None) -> None:
    """Once here instead of in every host: bitsandbytes takes 4.5 s, peft, which imports it, 5.8 s.
    Not where there is CUDA, which it asks about its devices as it is imported."""
    if library is None or library in sys.modules or _CUDA_CONTROL.exists():
        return
    try:
        importlib.import_module(library)
    except ImportError:
        logging.info("%s is not installed here", library, extra={"action": "library-missing"})
        return
    gc.collect()
    gc.freeze()


def _fork(spec_path: Path) -> int:
    """The pid of a new host."""
    pid = os.fork()
    if pid == 0:
        _become_host(spec_path)
    return pid


def _become_host(spec_path: Path) -> None:
    """In the child: leave everything of the nursery behind, be a host, end. Never returns."""
    code = 1
    try:
        os.setsid()
        detach(spec_path)
        from warmrack_workers import host

        code = host.run(spec_path)
    except BaseException:
        logging.exception("the host failed", extra={"action": "host-failed"})
    finally:
        logging.shutdown()
        # Not sys.exit: the nursery's own exit handlers are none of the host's business.
        os._exit(code)


def detach(spec_path: Path) -> None:
    """Own files, signals and random numbers. Every descriptor above 2 is closed, else the agent
    would get no end-of-file from a dead nursery while a host of it lives."""
    import numpy
    import torch

    log_path = read_spec(spec_path).log_path
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger().handlers.clear()
    random.seed()
    numpy.random.seed()
    torch.seed()


def _claim_stdout() -> BinaryIO:
    """The answers' own descriptor; whatever a library prints goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return answers


def _answer(answers: BinaryIO, record: dict[str, object]) -> None:
    answers.write(json.dumps(record).encode() + b"\n")


if __name__ == "__main__":
    main()
