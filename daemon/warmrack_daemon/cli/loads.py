"""The commands that ask for a model: load, prefetch, explain."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_line, print_record
from warmrack_daemon.cli.session import open_client, wait_for

if TYPE_CHECKING:
    from warmrack import Client, Job


def load(
    model: options.Model,
    revision: options.Revision = None,
    mode: options.ModeName = "exact",
    precision: options.PrecisionName = "checkpoint",
    quantize: options.QuantizeName = None,
    max_seq_length: options.MaxSeqLength = None,
    keep_alive: options.KeepAlive = None,
    priority: options.PriorityName = "normal",
    node: Annotated[str | None, typer.Option(help="The node that shall load it.")] = None,
    timeout: options.Timeout = None,
    locked: options.Locked = False,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Load a model onto a device of the pool and keep it warm."""
    request = _request(revision, mode, precision, quantize, max_seq_length, locked)
    fields = _job(priority, timeout) | _given(
        keep_alive=keep_alive, nodes=None if node is None else [node]
    )
    with open_client() as client:
        if dry_run:
            _explain(client, model, request, as_json=json)
            return
        job = client.load(model, **request, **fields)
        _finish(client, job, no_wait=no_wait, as_json=json, verbose=verbose)


def prefetch(
    model: options.Model,
    revision: options.Revision = None,
    mode: options.ModeName = "exact",
    precision: options.PrecisionName = "checkpoint",
    quantize: options.QuantizeName = None,
    tier: Annotated[str, typer.Option(help="Where it ends: disk or ram.")] = "disk",
    nodes: Annotated[str | None, typer.Option(help="all, a number, or names: a,b.")] = None,
    priority: options.PriorityName = "normal",
    timeout: options.Timeout = None,
    locked: options.Locked = False,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Bring a model's files into the cache without loading them."""
    request = _request(revision, mode, precision, quantize, None, locked)
    fields = _job(priority, timeout) | _given(tier=tier, nodes=nodes)
    with open_client() as client:
        if dry_run:
            _explain(client, model, request, as_json=json)
            return
        job = client.prefetch(model, **request, **fields)
        _finish(client, job, no_wait=no_wait, as_json=json, verbose=verbose)


def explain(
    model: options.Model,
    revision: options.Revision = None,
    mode: options.ModeName = "exact",
    precision: options.PrecisionName = "checkpoint",
    quantize: options.QuantizeName = None,
    max_seq_length: options.MaxSeqLength = None,
    locked: options.Locked = False,
    json: options.Json = False,
) -> None:
    """Show what a request resolves to, and why; downloads nothing."""
    request = _request(revision, mode, precision, quantize, max_seq_length, locked)
    with open_client() as client:
        _explain(client, model, request, as_json=json)


COMMANDS = (load, prefetch, explain)


def _request(
    revision: str | None,
    mode: str,
    precision: str,
    quantize: str | None,
    max_seq_length: int | None,
    locked: bool,
) -> dict[str, Any]:
    return {"mode": mode, "precision": precision} | _given(
        revision=revision,
        quantize=quantize,
        max_seq_length=max_seq_length,
        lock="require" if locked else None,
    )


def _job(priority: str, timeout: str | None) -> dict[str, Any]:
    from warmrack_store.durations import parse_duration

    seconds = None if timeout is None else parse_duration(timeout)
    return {"priority": priority} | _given(timeout_seconds=seconds)


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


def _explain(client: "Client", model: str, request: dict[str, Any], *, as_json: bool) -> None:
    from warmrack_daemon.cli.explanations import print_explanation

    explanation = client.explain(model, **request)
    if as_json:
        print_record(explanation)
    else:
        print_explanation(explanation)
