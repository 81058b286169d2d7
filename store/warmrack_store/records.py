"""The base of records that cross a process boundary, and their canonical JSON."""

import hashlib
import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from warmrack_store.errors import BadRequest


class Record(BaseModel):
    """Frozen and closed: an unknown field is an error, an instance never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def parse_record(kind: type[AnyRecord], data: object) -> AnyRecord:
    """The record in `data` (a decoded JSON value); BadRequest names the first bad field."""
    try:
        return kind.model_validate_json(_write_json(data))
    except ValidationError as error:
        raise bad_request(error.errors(include_url=False)) from error
    except ValueError as error:
        hint = "Numbers must be finite, texts Unicode (type them in UTF-8)."
        raise BadRequest(f"not a JSON value: {error}", hint=hint) from error


def parse_json(kind: type[AnyRecord], text: str) -> AnyRecord:
    """The record in a JSON text; BadRequest names the first bad field."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise bad_request(error.errors(include_url=False)) from error


def bad_request(errors: object) -> BadRequest:
    """The first of pydantic's error entries as our own refusal, with the field's path and value."""
    entry = errors[0] if isinstance(errors, (list, tuple)) and errors else {}
    where = ".".join(str(part) for part in entry.get("loc", ()) if part != "body") or "body"
    message = str(entry.get("msg", "is not valid")).removeprefix("Value error, ")
    value = entry.get("input")
    shown = f" (got {value!r:.80})" if isinstance(value, (str, int, float)) else ""
    return BadRequest(f"{where}: {message}{shown}")


def check_json(value: object) -> None:
    """Raise ValueError for what is no JSON although Python writes it: NaN, infinity, half a pair
    of surrogates; and for what Python cannot write."""
    _write_json(value)


def _write_json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds text that is not Unicode: {error.reason}") from error
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def canonical_json(value: object) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_json(value: object) -> str:
    """sha256 of the canonical JSON, first 32 hex characters."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:32]
