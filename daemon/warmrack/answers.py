"""Answers of the service, read as the records they hold or raised as the errors they carry."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from warmrack.steps import Answer
from warmrack_store.errors import (
    Defect,
    Refusal,
    Unreachable,
    WarmrackError,
    leaves,
)

AnyResult = TypeVar("AnyResult", bound=BaseModel)
_CODES = frozenset(kind.code for kind in leaves())


def read_json(answer: Answer) -> Any:
    """The decoded body (None where it is empty); raises the error that the answer carries."""
    if not answer.ok:
        raise read_error(answer)
    if not answer.body:
        return None
    try:
        return json.loads(answer.body)
    except ValueError as error:
        raise _not_ours(answer) from error


def read_record(kind: type[AnyResult], data: object) -> AnyResult:
    """The record in `data`; fields that this version does not know are let through."""
    try:
        return kind.model_validate(data, extra=kind.model_config.get("extra", "ignore"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Defect(
            f"the service's {kind.__name__} cannot be read: {where}: {first['msg']}",
            hint="Client and service may be of different versions: `warmrack doctor` shows both.",
        ) from error


def read_error(answer: Answer) -> WarmrackError:
    """The error of an answer that is not a success."""
    problem = _find_problem(answer)
    if problem is None:
        return _not_ours(answer)
    error = error_of(problem, status=answer.status)
    error.retry_after_seconds = _retry_after(answer.headers)
    return error


def error_of(record: Mapping[str, object], *, status: int | None = None) -> WarmrackError:
    """The error of a record or of a problem, whose message is its `detail`.

    A code that only a newer service knows is kept in the message.
    """
    code = str(record.get("code", ""))
    error = WarmrackError.from_record({"message": record.get("detail", ""), **record})
    if code in _CODES:
        return error
    message = f"{code}: {error.message}"
    if isinstance(error, Defect) and status is not None and 400 <= status < 500:
        return Refusal(message, hint=error.hint)
    return type(error)(message, hint=error.hint)


def find_job(answer: Answer) -> object | None:
    """The load job that a `model-cold` answer names."""
    problem = _find_problem(answer)
    if problem is None or problem.get("code") != "model-cold":
        return None
    return problem.get("job")


def _find_problem(answer: Answer) -> dict[str, object] | None:
    try:
        body = json.loads(answer.body)
    except ValueError:
        return None
    return body if isinstance(body, dict) and "code" in body else None


def _not_ours(answer: Answer) -> Unreachable:
    return Unreachable(
        f"{answer.url} answered {answer.status}, but not as warmrack does",
        hint="Check that WARMRACK_URL names a warmrack service and no proxy stands in between.",
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None
