"""The commands that say what a request would become and need: explain, estimate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_json, print_line, print_record, to_json
from warmrack_daemon.cli.session import open_client

if TYPE_CHECKING:
    from warmrack import Client


def explain(
    model: Annotated[str | None, typer.Argument(help=options.MODEL_HELP, metavar="[MODEL]")] = None,
    revision: options.Revision = None,
    mode: options.ModeName = "exact",
    precision: options.PrecisionName = "checkpoint",
    quantize: options.QuantizeName = None,
    max_seq_length: options.MaxSeqLength = None,
    unsloth_args: options.UnslothArgs = None,
    locked: options.Locked = False,
    lock_file: options.LockPath = Path("models.lock"),
    vs: Annotated[
        str | None, typer.Option(help="unsloth: say what that would load instead.")
    ] = None,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Answer by names alone; asks no service.")
    ] = False,
    batch: Annotated[
        str | None, typer.Option(help="With --names-only: a file of JSON lines, or -.")
    ] = None,
    trail: options.Trail = False,
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
    request = options.make_request(
        revision, mode, precision, quantize, max_seq_length, unsloth_args
    )
    request |= options.read_locked(model, request, lock_file) if locked else {}
    with open_client() as client:
        show_explanation(
            client, model, request, as_json=json, trail=trail, vs=vs, unsloth_args=unsloth_args
        )


def estimate(
    model: options.Model,
    revision: options.Revision = None,
    mode: options.ModeName = "exact",
    precision: options.PrecisionName = "checkpoint",
    quantize: options.QuantizeName = None,
    max_seq_length: options.MaxSeqLength = None,
    batch: Annotated[int, typer.Option(help="Sequences at once.", min=1, max=4096)] = 1,
    unsloth_args: options.UnslothArgs = None,
    locked: options.Locked = False,
    lock_file: options.LockPath = Path("models.lock"),
    json: options.Json = False,
) -> None:
    """Show the memory that a request needs and the devices that have it; downloads nothing."""
    request = options.make_request(
        revision, mode, precision, quantize, max_seq_length, unsloth_args
    )
    request |= options.read_locked(model, request, lock_file) if locked else {}
    with open_client() as client:
        found = client.estimate(model, batch=batch, **request)
    if json:
        print_record(found)
        return
    from warmrack_daemon.cli.explanation_view import print_estimate

    print_estimate(found)


def show_explanation(
    client: "Client",
    model: str,
    request: dict[str, Any],
    *,
    as_json: bool,
    trail: bool = False,
    vs: str | None = None,
    unsloth_args: str | None = None,
) -> None:
    """What the service says the request becomes; JSON has the trail in any case."""
    from warmrack_daemon.cli.comparisons import compare
    from warmrack_daemon.cli.explanation_view import print_explanation

    explanation = client.explain(model, **request)
    beside = vs and compare(model, request, explanation.model_type, unsloth_args)
    if as_json:
        print_json(to_json(explanation) | ({"vs_unsloth": beside} if beside else {}))
        return
    print_explanation(explanation, trail=trail)
    if beside:
        print_line("")
        print_line(beside["line"])


COMMANDS = (explain, estimate)
