"""The commands that use a warm model: task, run, embed."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmrack_daemon.cli import options
from warmrack_daemon.cli.output import print_json, say, write
from warmrack_daemon.cli.session import open_client
from warmrack_daemon.cli.stdin import read_stdin

if TYPE_CHECKING:
    from warmrack import Client


def task(
    model: options.Model,
    task: Annotated[str, typer.Argument(help="generate, chat, embed, tokenize, ...")],
    payload: Annotated[
        str, typer.Argument(help="The task's input as JSON, or - to read it from stdin.")
    ] = "{}",
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Run a downstream task on a model and print its result as JSON."""
    del json  # the result is JSON in any case
    decoded = _decode(_text(payload))
    with open_client() as client:
        print_json(_run(client, model, task, decoded, verbose=verbose))


def run(
    model: options.Model,
    prompt: Annotated[str, typer.Argument(help="The text to go on with, or - for stdin.")],
    max_tokens: Annotated[int | None, typer.Option(help="Stop after so many tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: always the likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from this share only.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text.")] = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Generate text and print it as it comes."""
    values = {
        "prompt": _text(prompt),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "stop": stop or None,
    }
    payload = {name: value for name, value in values.items() if value is not None}
    with open_client() as client:
        if json:
            print_json(_run(client, model, "generate", payload, verbose=verbose))
        else:
            _stream(client, model, payload, verbose=verbose)


def embed(
    model: options.Model,
    text: Annotated[list[str], typer.Argument(help="The texts to embed.")],
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Print the embedding of each text as JSON."""
    del json  # vectors are JSON in any case
    with open_client() as client:
        print_json(_run(client, model, "embed", {"texts": list(text)}, verbose=verbose))


COMMANDS = (task, run, embed)


def _run(
    client: "Client", model: str, task: str, payload: dict[str, Any], *, verbose: bool
) -> dict[str, Any]:
    from warmrack_daemon.cli.progress import watching

    with watching(verbose=verbose) as on_change:
        return client.run_task(model, task, payload, on_change=on_change)


def _stream(client: "Client", model: str, payload: dict[str, Any], *, verbose: bool) -> None:
    from contextlib import ExitStack

    from warmrack import Done
    from warmrack_daemon.cli.progress import watching

    begun = False
    try:
        with ExitStack() as bar:
            on_change = bar.enter_context(watching(verbose=verbose))
            for piece in client.stream_task(model, "generate", payload, on_change=on_change):
                bar.close()
                if isinstance(piece, Done):
                    if verbose:
                        say(f"{piece.result.get('finish_reason')}, {piece.result.get('usage')}")
                else:
                    write(piece.text)
                    begun = True
    finally:
        if begun:
            write("\n")


def _text(argument: str) -> str:
    return read_stdin() if argument == "-" else argument


def _decode(text: str) -> dict[str, Any]:
    import json

    from warmrack_store.errors import BadRequest

    try:
        payload = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"the payload is not JSON: {error}") from error
    if not isinstance(payload, dict):
        raise BadRequest("the payload is not a JSON object", hint='Write {"field": value, ...}.')
    return payload
