"""The commands that ask for a model: load, prefetch."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.explanations import show_explanation
from warmrack_daemon.cli.kept_locks import keep_lock
from warmrack_daemon.cli.output import print_line, print_record
from warmrack_daemon.cli.requested import Requested, requested
from warmrack_daemon.cli.session import open_client, wait_for

if TYPE_CHECKING:
    from warmrack import Client, Job


@requested
def load(
    model: options.Model,
    request: Requested,
    keep_alive: options.KeepAlive = None,
    priority: options.PriorityName = "normal",
    node: Annotated[str | None, typer.Option(help="The node that shall load it.")] = None,
    timeout: options.Timeout = None,
    expires_at: options.ExpiresAt = None,
    idempotency_key: options.IdempotencyKey = None,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Load a model onto a device of the pool and keep it warm."""
    fields = _job(priority, timeout, expires_at) | _given(
        keep_alive=keep_alive, nodes=None if node is None else [node]
    )
    with open_client() as client:
        if dry_run:
            show_explanation(client, model, request, as_json=json)
            return
        fields |= _given(lock_digest=keep_lock(client, request.lock))
        job = client.load(model, idempotency_key=idempotency_key, **request.fields, **fields)
        _finish(client, job, no_wait=no_wait, as_json=json, verbose=verbose)


@requested
def prefetch(
    model: options.Model,
    request: Requested,
    tier: Annotated[str, typer.Option(help="Where it ends: disk; ram is not served yet.")] = "disk",
    nodes: Annotated[
        str | None,
        typer.Option(help="all, how many, or names by comma; default: the pool chooses one."),
    ] = None,
    priority: options.PriorityName = "normal",
    timeout: options.Timeout = None,
    expires_at: options.ExpiresAt = None,
    idempotency_key: options.IdempotencyKey = None,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Bring a model's files into the cache without loading them."""
    fields = _job(priority, timeout, expires_at) | _given(tier=tier, nodes=nodes)
    with open_client() as client:
        if dry_run:
            show_explanation(client, model, request, as_json=json)
            return
        fields |= _given(lock_digest=keep_lock(client, request.lock))
        job = client.prefetch(model, idempotency_key=idempotency_key, **request.fields, **fields)
        _finish(client, job, no_wait=no_wait, as_json=json, verbose=verbose)


COMMANDS = (load, prefetch)


def _job(priority: str, timeout: str | None, expires_at: str | None) -> dict[str, Any]:
    from warmrack_store.durations import parse_duration

    seconds = None if timeout is None else parse_duration(timeout)
    return {"priority": priority} | _given(timeout_seconds=seconds, expires_at=expires_at)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _finish(client: "Client", job: "Job", *, no_wait: bool, as_json: bool, verbose: bool) -> None:
    if not no_wait:
        job = wait_for(client, job, verbose=verbose)
    if as_json:
        print_record(job)
        return
    where = f" on {job.node}" if job.node else ""
    what = ""
    if job.resolution is not None:
        precision = f" {job.resolution.precision}" if job.resolution.precision else ""
        what = f": {job.resolution.repository}@{job.resolution.commit}{precision}{where}"
    print_line(f"job {job.id} {job.state}{what}")
