"""The commands about jobs: jobs, job, cancel."""

import json as json_text
from typing import TYPE_CHECKING, Annotated

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import (
    print_json,
    print_line,
    print_list,
    print_record,
    print_table,
    to_json,
)
from warmrack_daemon.cli.session import open_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warmrack import Client, Event, Job


def jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs for this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    json: options.Json = False,
) -> None:
    """List the jobs."""
    with open_client() as client:
        found = client.jobs(state=state, model=model, limit=limit)
    if json:
        print_list(found)
    else:
        rows = [
            (job.id, job.kind, job.state, job.model, job.node, job.cause or "") for job in found
        ]
        print_table(("id", "kind", "state", "model", "node", "cause"), rows)


def job(
    id: options.JobId,
    logs: Annotated[bool, typer.Option("--logs", help="Also every event so far.")] = False,
    json: options.Json = False,
) -> None:
    """Show one job."""
    with open_client() as client:
        found = client.job(id)
        events = list(_events(client, found)) if logs else []
    if json:
        record = to_json(found)
        print_json(record | {"events": [to_json(one) for one in events]} if logs else record)
        return
    for name, value in _facts(found):
        print_line(f"{name.ljust(10)}  {value}")
    for event in events:
        print_line(
            f"{event.id or ''}  {event.type}  {json_text.dumps(event.data, ensure_ascii=False)}"
        )


def cancel(id: options.JobId, json: options.Json = False) -> None:
    """End a job."""
    with open_client() as client:
        ended = client.cancel(id)
    if json:
        print_record(ended)
    else:
        asked = "" if ended.state.terminal else ", it ends as soon as its worker has let go"
        print_line(f"job {ended.id} {ended.state}{asked}")


COMMANDS = (jobs, job, cancel)


def _events(client: "Client", job: "Job") -> "Iterator[Event]":
    """The stored events; the progress that follows them is of a job that still runs."""
    for event in client.events(job.id):
        if event.type == "progress":
            return
        yield event


def _facts(job: "Job") -> "Iterator[tuple[str, object]]":
    from warmrack_daemon.cli.progress import describe_figures

    yield "job", job.id
    yield "kind", job.kind
    yield "state", job.state
    for name in ("model", "cause", "node", "resident"):
        if (value := getattr(job, name)) is not None:
            yield name, value
    yield "attempt", job.attempt
    if figures := describe_figures(job):
        yield "bytes", figures
    if job.progress.waiting_for:
        yield "waits for", job.progress.waiting_for
    if job.resolution is not None:
        yield "serves", f"{job.resolution.repository}@{job.resolution.commit}"
    if job.error is not None:
        yield "error", f"{job.error.code}: {job.error.message}"
        yield "hint", job.error.hint
