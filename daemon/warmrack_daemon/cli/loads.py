"""The commands that ask for a model: load, prefetch, explain."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_json, print_line, print_record, to_json
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
    unsloth_args: options.UnslothArgs = None,
    locked: options.Locked = False,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Load a model onto a device of the pool and keep it warm."""
    request = _request(revision, mode, precision, quantize, max_seq_length, locked, unsloth_args)
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
    unsloth_args: options.UnslothArgs = None,
    locked: options.Locked = False,
    dry_run: options.DryRun = False,
    no_wait: options.NoWait = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Bring a model's files into the cache without loading them."""
    request = _request(revision, mode, precision, quantize, None, locked, unsloth_args)
    fields = _job(priority, timeout) | _given(tier=tier, nodes=nodes)
    with open_client() as client:
        if dry_run:
            _explain(client, model, request, as_json=json)
            return
        job = client.prefetch(model, **request, **fields)
        _finish(client, job, no_wait=no_wait, as_json=json, verbose=verbose)


def explain(
    model: Annotated[str | None, typer.Argument(help=options.MODEL_HELP, metavar="[MODEL]")] = None,
    revision: options.Revision = None,
    mode: options.ModeName = "exact",
    precision: options.PrecisionName = "checkpoint",
    quantize: options.QuantizeName = None,
    max_seq_length: options.MaxSeqLength = None,
    unsloth_args: options.UnslothArgs = None,
    locked: options.Locked = False,
    vs: Annotated[
        str | None, typer.Option(help="unsloth: say what that would load instead.")
    ] = None,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Answer by names alone; asks no service.")
    ] = False,
    batch: Annotated[
        str | None, typer.Option(help="With --names-only: a file of JSON lines, or -.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show what a request resolves to, and why; downloads nothing."""
    from warmrack_daemon.cli.comparisons import check_peer, print_names
    from warmrack_store.errors import BadRequest

    check_peer(vs)
    if names_only or batch is not None:
        print_names(batch, mode, alone=names_only and model is None)
        return
    if model is None:
        raise BadRequest("no MODEL is given", hint="Give one, or --names-only with --batch FILE.")
    request = _request(revision, mode, precision, quantize, max_seq_length, locked, unsloth_args)
    with open_client() as client:
        _explain(client, model, request, as_json=json, vs=vs, unsloth_args=unsloth_args)


COMMANDS = (load, prefetch, explain)


def _request(
    revision: str | None,
    mode: str,
    precision: str,
    quantize: str | None,
    max_seq_length: int | None,
    locked: bool,
    unsloth_args: str | None,
) -> dict[str, Any]:
    request = {"mode": mode, "precision": precision} | _given(
        revision=revision,
        quantize=quantize,
        max_seq_length=max_seq_length,
        lock="require" if locked else None,
    )
    if unsloth_args is None:
        return request
    from warmrack.unsloth_args import merge_fields, parse_arguments

    return merge_fields(request, parse_arguments(unsloth_args))


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


def _explain(
    client: "Client",
    model: str,
    request: dict[str, Any],
    *,
    as_json: bool,
    vs: str | None = None,
    unsloth_args: str | None = None,
) -> None:
    from warmrack_daemon.cli.comparisons import compare
    from warmrack_daemon.cli.explanations import print_explanation

    explanation = client.explain(model, **request)
    beside = vs and compare(model, request, explanation.model_type, unsloth_args)
    if as_json:
        print_json(to_json(explanation) | ({"vs_unsloth": beside} if beside else {}))
        return
    print_explanation(explanation)
    if beside:
        print_line("")
        print_line(beside["line"])
