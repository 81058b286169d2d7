"""The commands that say what a request would become and need: explain, estimate."""

from typing import TYPE_CHECKING, Annotated

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_json, print_line, print_record, to_json
from warmrack_daemon.cli.requested import Requested, requested
from warmrack_daemon.cli.session import open_client

if TYPE_CHECKING:
    from warmrack import Client


@requested
def explain(
    request: Requested,
    model: Annotated[str | None, typer.Argument(help=options.MODEL_HELP, metavar="[MODEL]")] = None,
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
        print_names(batch, request.mode, alone=names_only and model is None)
        return
    if model is None:
        raise BadRequest("no MODEL is given", hint="Give one, or --names-only with --batch FILE.")
    with open_client() as client:
        show_explanation(client, model, request, as_json=json, trail=trail, vs=vs)


@requested
def estimate(
    model: options.Model,
    request: Requested,
    batch: Annotated[int, typer.Option(help="Sequences at once.", min=1, max=4096)] = 1,
    json: options.Json = False,
) -> None:
    """Show the memory that a request needs and the devices that have it; downloads nothing."""
    with open_client() as client:
        found = client.estimate(model, batch=batch, **request.fields)
    if json:
        print_record(found)
        return
    from warmrack_daemon.cli.explanation_view import print_estimate

    print_estimate(found)


def show_explanation(
    client: "Client",
    model: str,
    request: Requested,
    *,
    as_json: bool,
    trail: bool = False,
    vs: str | None = None,
) -> None:
    """What the service says the request becomes; JSON has the trail in any case."""
    from warmrack_daemon.cli.comparisons import compare
    from warmrack_daemon.cli.explanation_view import print_explanation

    explanation = client.explain(model, **request.fields)
    beside = vs and compare(model, request, explanation)
    if as_json:
        print_json(to_json(explanation) | ({"vs_unsloth": beside} if beside else {}))
        return
    print_explanation(explanation, trail=trail)
    if beside:
        print_line("")
        print_line(beside["line"])


COMMANDS = (explain, estimate)
