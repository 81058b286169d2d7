"""A job's progress on stderr: a bar on a terminal, lines when asked for, else nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from warmrack import Job
from warmrack_daemon.cli.output import say
from warmrack_store.durations import format_duration, format_size

OnChange = Callable[[Job], None]


@contextmanager
def watching(*, verbose: bool) -> Iterator[OnChange | None]:
    """What shows each state of the job for as long as the block lasts; None: nothing does."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    elif verbose:
        yield _Lines().show
    else:
        yield None


class _Lines:
    """One line for each change of state."""

    def __init__(self) -> None:
        self._said = ""

    def show(self, job: Job) -> None:
        line = describe_state(job)
        if line != self._said:
            say(line)
            self._said = line


@contextmanager
def _bar() -> Iterator[OnChange]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def show(job: Job) -> None:
            if not progress.task_ids:
                progress.add_task("", total=None, figures="")
            progress.update(
                progress.task_ids[0],
                description=describe_state(job),
                total=job.progress.bytes_total or None,
                completed=job.progress.bytes_done,
                figures=describe_figures(job),
            )

        yield show


def describe_state(job: Job) -> str:
    """The state and what it waits for: `job 7 queued (waits for a free device, place 3)`."""
    reasons = [f"waits for {job.progress.waiting_for}"] if job.progress.waiting_for else []
    if job.progress.position:
        reasons.append(f"place {job.progress.position}")
    if job.attempt > 1:
        reasons.append(f"attempt {job.attempt}")
    return f"job {job.id} {job.state}" + (f" ({', '.join(reasons)})" if reasons else "")


def describe_figures(job: Job) -> str:
    """Bytes, rate and time left: `12.0 MiB of 257.3 MiB, 25.0 MiB/s, 9.8 s left`."""
    progress = job.progress
    if not progress.bytes_total:
        return ""
    parts = [f"{format_size(progress.bytes_done)} of {format_size(progress.bytes_total)}"]
    if progress.rate:
        parts.append(f"{format_size(progress.rate)}/s")
    if progress.eta_seconds is not None:
        parts.append(f"{format_duration(progress.eta_seconds)} left")
    return ", ".join(parts)
