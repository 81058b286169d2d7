"""What Unsloth would have loaded: for many names at once, and beside one explanation."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmrack_daemon.cli.output import write
from warmrack_daemon.cli.stdin import read_stdin
from warmrack_store.errors import BadRequest, WarmrackError

if TYPE_CHECKING:
    from warmrack.results import Explanation
    from warmrack_daemon.cli.requested import Requested
    from warmrack_store.resolver.compat import CompatAnswer, CompatRequest

UNSLOTH = "unsloth"
_LOAD_FLAGS = ("load_in_4bit", "load_in_8bit", "load_in_16bit", "load_in_fp8")
_SAME_CALL = ("revision", "precision")
_CALL_FIELDS = (*_LOAD_FLAGS, "full_finetuning", "use_exact_model_name")


def print_names(batch: str | None, mode: str, *, alone: bool) -> None:
    """Answer each line of the file (`-`: stdin) by one compact JSON object; no service is asked.

    `mode` is that of lines that name none; `alone`: --names-only was given, and no MODEL. Nothing
    is printed where a line is malformed.
    """
    from warmrack_store.resolver.compat import answer

    if batch is None or not alone:
        raise BadRequest(
            "--names-only and --batch FILE belong together, without a MODEL",
            hint="FILE holds one JSON object a line and may be - for stdin.",
        )
    requests = list(_read_requests(_read_lines(batch), mode))
    answers = (answer(request).model_dump(mode="json") for request in requests)
    # ASCII, so that no line separator of Unicode ends a line.
    write("".join(f"{json.dumps(one, separators=(',', ':'))}\n" for one in answers))


def check_peer(name: str | None) -> None:
    """Raise BadRequest for a peer that is not known."""
    if name not in (None, UNSLOTH):
        raise BadRequest(f"--vs {name} is not known", hint=f"Give --vs {UNSLOTH}.")


def compare(model: str, request: "Requested", explanation: "Explanation") -> dict[str, Any]:
    """What Unsloth would load for the request, with one line that says it in words.

    Where Unsloth's own arguments are given, they are the call; else the call that says the same.
    """
    from warmrack.unsloth_args import parse_arguments
    from warmrack_store.records import parse_record
    from warmrack_store.requests import LoadRequest
    from warmrack_store.resolver.compat import answer, ask_compat

    fields = {key: request.fields[key] for key in _SAME_CALL if key in request.fields}
    asked = parse_record(LoadRequest, {**fields, **_name_pair(model, request, explanation)})
    call = ask_compat(asked, model_type=explanation.model_type)
    if request.unsloth_args is not None:
        arguments = parse_arguments(request.unsloth_args)
        told = {name: arguments[name] for name in _CALL_FIELDS if arguments.get(name) is not None}
        call = call.model_copy(update=dict.fromkeys(_LOAD_FLAGS) | told)
    found = answer(call)
    return found.model_dump(mode="json") | {"line": _describe(call, found)}


def _name_pair(
    model: str, request: "Requested", explanation: "Explanation"
) -> Mapping[str, str | None]:
    """Unsloth is called with the adapter, and renames the base that the adapter names."""
    from warmrack_store.requests import AS_TRAINED, VENDOR

    pin = explanation.adapter
    if pin is None:
        return {"model": model}
    base = request.fields.get("adapter_base")
    if base in (None, AS_TRAINED, VENDOR):
        base = pin.base_named or explanation.repository
    return {"model": pin.repository, "revision": pin.ref_asked, "adapter_base": base}


def _describe(call: "CompatRequest", found: "CompatAnswer") -> str:
    from warmrack_store.catalog import CATALOG_VERSION

    peer = CATALOG_VERSION.replace("unsloth-", "Unsloth ")
    if found.resolved is None:
        return f"{peer} would raise {found.error} for this call"
    moved = found.resolved.lower() != call.model.lower()
    said = [f"{peer} would load {found.resolved}"]
    said += [f" instead of {call.model}" if moved else ", the same repository"]
    said += [f", {_bits(found)}"]
    if call.revision is not None and found.revision is None:
        said += [f", without the revision {call.revision}"]
    if moved:
        said += [", silently" if found.silent else ", with a message"]
    return "".join(said)


def _bits(found: "CompatAnswer") -> str:
    stored = (found.resolved or "").lower().endswith("-bnb-4bit")
    if found.load_in_4bit:
        return "in 4 bits as stored" if stored else "quantized to 4 bits at the load"
    if found.load_in_8bit:
        return "quantized to 8 bits at the load"
    return (
        "in FP8" if "fp8" in (found.resolved or "").lower() or found.load_in_fp8 else "in 16 bits"
    )


def _read_lines(batch: str) -> list[str]:
    from warmrack.bounded_files import read_text

    text = read_stdin() if batch == "-" else read_text(Path(batch)).removeprefix("\ufeff")
    return text.split("\n")


def _read_requests(lines: Iterable[str], mode: str) -> Iterator["CompatRequest"]:
    from warmrack_store.records import parse_record
    from warmrack_store.resolver.compat import CompatRequest

    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise BadRequest("not a JSON object")
            yield parse_record(CompatRequest, {"mode": mode, **fields})
        except json.JSONDecodeError as error:
            place = f"line {number}: not JSON: {error.msg} (column {error.colno})"
            raise BadRequest(place, hint=_LINE_HINT) from error
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"line {number}: not JSON: {error}", hint=_LINE_HINT) from error
        except WarmrackError as error:
            raise BadRequest(f"line {number}: {error.message}", hint=_LINE_HINT) from error


_LINE_HINT = 'One object a line, such as {"model": "org/name", "mode": "compat:unsloth"}.'
