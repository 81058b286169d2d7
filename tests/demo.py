"""`make demo`: the whole idea on this machine in a few seconds, each step proved as it is shown."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.text import Text

import warmrack
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub, running_hub
from tests.hub.models import get_model_folder
from warmrack_store.durations import format_size

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
QUESTION = "What is the capital of France?"
ANSWER = "Paris"
_DEVICES = "cpu:0=4GiB"
_LOAD_SECONDS = 120.0
_MOST_SENT = 1.01
"""Hub bytes over the repository's size: resolving reads the weights' headers, and no more."""
_CHECKS = {
    "E1": "the repository that was asked for, its commit pinned before any file",
    "E2": "every file has the Hub's digest",
    "E3": "the config as published, the class it declares",
    "E4": "no quantization added",
    "E5": "the dtypes as stored",
    "E6": "every tensor's values equal the file's",
    "E7": "the tokenizer as published",
    "E8": "the config not changed after the load",
}


class Story:
    """What the terminal shows; remembers whether every step proved true."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._begun = time.monotonic()
        self.failed: list[str] = []

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """A heading, then what is told under it."""
        self._console.print(Text.assemble(("▸ ", "cyan"), (title, "bold")))
        yield
        self._console.print()

    def tell(self, label: str, text: str = "", *, style: str = "dim") -> None:
        self._console.print(Text.assemble(f"  {label:<11} ", (text, style)))

    def prove(self, holds: bool, claim: str, detail: str = "") -> None:
        """One claim with what came out; a false one fails the demo."""
        mark = ("  ✓ ", "bold green") if holds else ("  ✗ ", "bold red")
        shown = f"  {detail}" if detail else ""
        self._console.print(Text.assemble(mark, claim, (shown, "dim")))
        if not holds:
            self.failed.append(claim)

    def write(self, text: str, *, style: str = "") -> None:
        """A piece of text where the line stands."""
        self._console.print(Text(text, style=style), end="")
        self._console.file.flush()

    def end(self) -> int:
        """The last line; the exit code."""
        seconds = time.monotonic() - self._begun
        if self.failed:
            self._console.print(Text(f"not proved: {'; '.join(self.failed)}", style="bold red"))
            return 1
        self._console.print(Text(f"Every step proved true, in {seconds:.1f} s.", style="bold"))
        return 0


def show_start(story: Story, stack: Stack, seconds: float) -> None:
    parts = ", ".join(sorted(stack.ready["pids"]))
    story.prove(bool(parts), f"`warmrack up` was ready after {seconds:.1f} s", parts)


def show_load(story: Story, client: warmrack.Client) -> warmrack.Job:
    """Submit a load and tell its way, event by event, until it has ended."""
    job = client.load(MODEL, timeout_seconds=_LOAD_SECONDS)
    begun: datetime | None = None
    last: datetime | None = None
    for event in client.events(job.id):
        if "at" not in event.data:
            continue
        at = datetime.fromisoformat(event.data["at"])
        begun, last = begun or at, at
        where = f"on {event.data['node']}" if "node" in event.data else ""
        story.tell(event.type, f"+{(at - begun).total_seconds():5.2f} s  {where}".rstrip())
    done = client.job(job.id)
    seconds = (last - begun).total_seconds() if begun and last else 0.0
    size = format_size(done.progress.bytes_total)
    story.prove(done.state == "succeeded", f"warm {seconds:.2f} s after the submit", size)
    return done


def show_receipt(story: Story, client: warmrack.Client, job: warmrack.Job) -> None:
    receipt = client.receipt(job.id)
    for name, claim in _CHECKS.items():
        check = receipt.checks.get(name)
        story.prove(check is not None and check.passed, f"{name} {claim}")
    served = f"{receipt.served.repository}@{receipt.served.commit[:12]} {receipt.served.precision}"
    story.prove(receipt.identical, f"identical to what was asked: {served}")
    root = f"root {receipt.tensor_root or '-'}"
    story.tell(f"{receipt.tensors} tensors audited in {receipt.audit_seconds:.2f} s,", root[:21])


def show_answer(story: Story, client: warmrack.Client) -> None:
    """Ask the warm model and show its answer as it comes."""
    payload = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 24}
    payload |= {"temperature": 0.0}
    text = ""
    first_seconds = None
    begun = time.monotonic()
    story.write(f"  {QUESTION} ")
    for piece in client.stream_task(MODEL, "chat", payload):
        if isinstance(piece, warmrack.Token):
            first_seconds = first_seconds or time.monotonic() - begun
            text += piece.text
            story.write(piece.text, style="bold cyan")
    story.write("\n")
    story.prove(ANSWER in text, f"first token after {1000 * (first_seconds or 0.0):.0f} ms")


def show_second_load(story: Story, client: warmrack.Client, first: warmrack.Job) -> None:
    begun = time.monotonic()
    job = client.wait(client.load(MODEL).id, timeout_seconds=_LOAD_SECONDS)
    seconds = time.monotonic() - begun
    joined = job.resident == first.resident
    story.prove(joined, f"joined the warm model, in {1000 * seconds:.0f} ms", job.resident or "")


def show_egress(story: Story, hub: Hub) -> None:
    sent_bytes = hub.read_counts().file_bytes(repository=MODEL)
    size_bytes = sum(hub.get_commit(MODEL).sizes_bytes.values())
    ratio = sent_bytes / size_bytes
    detail = f"{format_size(sent_bytes)} of {format_size(size_bytes)}"
    story.prove(1.0 <= ratio < _MOST_SENT, f"the Hub sent {ratio:.2f} x the repository", detail)


def tell(story: Story) -> None:
    """The demo from its start to its end; nothing of it is left running."""
    folder = get_model_folder("smollm2")
    begun = time.monotonic()
    with running_hub({MODEL: folder}) as hub, running_stack(hub, devices=_DEVICES) as stack:
        with story.chapter("A pool on this machine, and a Hub to load from"):
            show_start(story, stack, time.monotonic() - begun)
        with stack.client() as client:
            with story.chapter(f"warmrack load {MODEL}"):
                job = show_load(story, client)
            with story.chapter(f"warmrack receipt {job.id}"):
                show_receipt(story, client, job)
            with story.chapter("Ask it"):
                show_answer(story, client)
            with story.chapter("Load it again"):
                show_second_load(story, client, job)
        with story.chapter("What it cost, and the end"):
            show_egress(story, hub)
            code = stack.stop()
            left = len(stack.list_processes())
            story.prove(code == 0 and not left, "everything stopped", f"{left} processes left")


def main() -> None:
    story = Story()
    tell(story)
    sys.exit(story.end())


if __name__ == "__main__":
    main()
