"""The options that say what is asked for, the same for every command that asks for a model."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from warmrack_daemon.cli import options

if TYPE_CHECKING:
    from warmrack.lockfile import LockFile

Command = TypeVar("Command", bound=Callable[..., None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """A request as a command line says it."""

    fields: dict[str, Any] = field(default_factory=dict)
    """LoadRequest's fields, all but the model."""
    mode: str
    unsloth_args: str | None
    lock_file: Path
    locked: bool = False
    """`--locked` was given."""
    lock: "LockFile | None" = None
    """The file, where the request is held to it."""


def _options(
    revision: options.Revision = None,
    mode: options.ModeName = None,
    precision: options.PrecisionName = None,
    quantize: options.QuantizeName = None,
    publishers: Annotated[
        str | None,
        typer.Option(help="Who may supply a stand-in: a,b or *; default the model's own."),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="A LoRA adapter for the model: org/name, org/name@revision.")
    ] = None,
    adapter_base: Annotated[
        str | None, typer.Option(help="The adapter's base: as_trained, vendor or org/name.")
    ] = None,
    max_seq_length: options.MaxSeqLength = None,
    network: Annotated[
        str, typer.Option(help="online, cached_first (asks what is not known) or offline.")
    ] = "online",
    unsloth_args: options.UnslothArgs = None,
    locked: options.Locked = False,
    lock_file: options.LockPath = Path("models.lock"),
) -> None:
    """Never called: its signature is the table of the options."""


_TABLE = inspect.signature(_options).parameters
_HINTS = get_type_hints(_options, include_extras=True)
_OPTIONAL = (
    *("mode", "precision", "revision", "quantize"),
    *("adapter", "adapter_base", "max_seq_length"),
)


def requested(command: Command) -> Command:
    """`command(model, request, ...)` with the request's options in the place of `request`."""
    shown = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        asked = {name: given.pop(name) for name in _TABLE}
        command(request=_read(given.get("model"), asked), **given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in shown.parameters.items():
        parameters += _TABLE.values() if name == "request" else [parameter]
    run.__dict__["__signature__"] = shown.replace(parameters=_keyword_only(parameters))
    run.__annotations__ = {**hints, **_HINTS, "return": None}
    del run.__annotations__["request"], run.__wrapped__
    return run  # type: ignore[return-value]  # the same command, as Typer shall see it


def _keyword_only(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    return [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]


def _read(model: str | None, asked: dict[str, Any]) -> Requested:
    fields, lock = _make_fields(asked), None
    if asked["locked"] and model is not None:
        from warmrack.lockfile import read_lock

        lock = read_lock(asked["lock_file"])
        fields |= _find_locked(model, fields, lock)
    return Requested(
        fields=fields,
        mode=asked["mode"] or "exact",
        unsloth_args=asked["unsloth_args"],
        lock_file=asked["lock_file"],
        locked=asked["locked"],
        lock=lock,
    )


def _make_fields(asked: dict[str, Any]) -> dict[str, Any]:
    """What the options say; what was not said is the service's to fill in."""
    fields = {name: asked[name] for name in _OPTIONAL if asked[name] is not None}
    if asked["publishers"] is not None:
        fields["publishers"] = tuple(asked["publishers"].split(","))
    if asked["network"] != "online":
        fields["network"] = asked["network"]
    if asked["unsloth_args"] is None:
        return fields
    from warmrack.unsloth_args import merge_fields, parse_arguments

    return merge_fields(fields, parse_arguments(asked["unsloth_args"]))


def _find_locked(model: str, fields: dict[str, Any], lock: "LockFile") -> dict[str, Any]:
    """The fields that hold a request to its entry in the lock file.

    A file without such an entry is for the service to refuse, as is any other request that
    requires a lock.
    """
    from warmrack_store.records import parse_record
    from warmrack_store.requests import LoadRequest

    asked = parse_record(LoadRequest, {**fields, "model": model})
    found = lock.find(asked)
    return {"lock": "require", "locked": found and found.model_dump(mode="json")}
