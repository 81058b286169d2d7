"""The shell examples of the pages, carried out as they stand.

`python -m docs.examples README.md` runs every block of ```sh in order, each in a bash of its own
in the checkout, against the bundled test Hub, with state and cache in a folder that is removed
afterwards. A block that ends with `warmrack up` goes on running until the last block has ended;
the next one begins when it has printed its line of JSON.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.hub.control import running_hub
from tests.hub.models import get_model_folder

CHECKOUT = Path(__file__).resolve().parents[1]
MODELS = {"HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2"}
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_STOP_SECONDS = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One block of commands; `page` and `line` say where it begins."""

    page: str
    line: int
    text: str

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """The words of each command, without comments."""
        words = (shlex.split(line, comments=True) for line in self.text.splitlines())
        return tuple(tuple(command) for command in words if command)

    @property
    def keeps_running(self) -> bool:
        """True for a block that starts the stack and does not end by itself."""
        last = self.commands[-1]
        return Path(last[0]).name == "warmrack" and last[1:2] == ("up",)


def read_examples(page: str, text: str) -> tuple[Example, ...]:
    """The shell blocks of one page, in order."""
    return tuple(
        Example(page=page, line=text.count("\n", 0, found.start()) + 1, text=found.group(1))
        for found in _BLOCK.finditer(text)
    )


class ExampleFailed(Exception):
    """A block did not end well; the message says which."""


def run_examples(examples: tuple[Example, ...], environment: Mapping[str, str]) -> None:
    """Run blocks in order; raises ExampleFailed at the first that fails."""
    with ExitStack() as running:
        for example in examples:
            print(f"\n== {example.page}:{example.line}\n{example.text}", flush=True)
            if example.keeps_running:
                process = running.enter_context(_started(example, environment))
                running.callback(_stop, process)
            else:
                _run(example, environment)


def _run(example: Example, environment: Mapping[str, str]) -> None:
    done = subprocess.run(_bash(example.text), cwd=CHECKOUT, env=environment, check=False)
    if done.returncode:
        raise ExampleFailed(f"{example.page}:{example.line} ended with {done.returncode}")


def _started(example: Example, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    # `exec`, so that the signal which ends it reaches the command and not its shell.
    *before, last = example.text.rstrip().splitlines()
    text = "\n".join([*before, f"exec {last}"])
    process = subprocess.Popen(
        _bash(text), cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    # Not shown: the line that says it is ready holds the broker's password.
    if not process.stdout.readline():
        raise ExampleFailed(f"{example.page}:{example.line} ended with {process.wait()}")
    return process


def _stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    code = process.wait(timeout=_STOP_SECONDS)
    if code:
        raise ExampleFailed(f"`warmrack up` ended with {code}")


def _bash(text: str) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c", text]


def make_environment(folder: Path, hub_url: str) -> dict[str, str]:
    """This environment without settings of its own, on a test Hub and an empty folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WARMRACK_", "HF_"))}
    state, cache = folder / "state", folder / "huggingface"
    return {**kept, "XDG_STATE_HOME": str(state), "HF_HOME": str(cache), "HF_ENDPOINT": hub_url}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.examples", description=__doc__)
    parser.add_argument("pages", nargs="+", metavar="PAGE")
    pages = parser.parse_args().pages
    examples = tuple(e for page in pages for e in read_examples(page, Path(page).read_text()))
    repositories = {name: get_model_folder(model) for name, model in MODELS.items()}
    with (
        tempfile.TemporaryDirectory(prefix="warmrack-examples-") as folder,
        running_hub(repositories) as hub,
    ):
        try:
            run_examples(examples, make_environment(Path(folder), hub.url))
        except ExampleFailed as failure:
            sys.exit(f"error: {failure}")
    print(f"\n{len(examples)} examples ran.")


if __name__ == "__main__":
    main()
