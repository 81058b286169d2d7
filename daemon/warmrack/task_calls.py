"""Conversations with a warm model; a model that is cold is waited for."""

from collections.abc import Mapping
from typing import Any

from warmrack.answers import error_of, find_job, read_error, read_json, read_record
from warmrack.job_calls import OnChange, wait
from warmrack.paths import quote_name
from warmrack.results import Done, Job, Token
from warmrack.sse import Message, Parser
from warmrack.steps import (
    API,
    Answer,
    Call,
    Conversation,
    Emit,
    Stream,
    open_stream,
    read_chunk,
    send,
)
from warmrack_store.errors import BadRequest, Defect, HostLost, ModelCold, Unreachable
from warmrack_store.records import parse_record
from warmrack_store.requests import LoadRequest, check_supported

_ANSWER_SECONDS = 600.0
"""A long answer that is not streamed is silent until it is whole."""
_COLD_TRIES = 3
"""A model may be evicted between its load and the task; more often than this it is a thrash."""


def run_task(
    model: str,
    task: str,
    payload: Mapping[str, Any],
    *,
    wait_if_cold: bool = True,
    on_change: OnChange | None = None,
    **request: Any,
) -> Conversation[dict[str, Any]]:
    """The task's result, straight from the warm model.

    A cold model's load job is waited for (`on_change` sees it) and the task asked again; without
    `wait_if_cold` that is ModelCold. `request` are LoadRequest's other fields.
    """
    watched = wait_if_cold and on_change is not None
    call = _call(model, task, payload, request, accept="application/json", watched=watched)
    answer = yield from send(call)
    for _ in range(_COLD_TRIES if wait_if_cold else 0):
        if answer.ok or not (yield from _warmed(answer, on_change)):
            break
        answer = yield from send(call)
    result = read_json(answer)
    if not isinstance(result, dict):
        raise Defect(f"the service's result of {task} is no JSON object")
    return result


def stream_task(
    model: str,
    task: str,
    payload: Mapping[str, Any],
    *,
    wait_if_cold: bool = True,
    on_change: OnChange | None = None,
    **request: Any,
) -> Stream[Token | Done]:
    """The task's pieces as they come, then `Done` with the whole result.

    Raises the error of a stream that ends with one, and HostLost for a stream that ends without
    its terminal event: a killed process looks like a clean end. `request`, `wait_if_cold` and
    `on_change` as in `run_task`.
    """
    watched = wait_if_cold and on_change is not None
    call = _call(model, task, payload, request, accept="text/event-stream", watched=watched)
    answer = yield from open_stream(call)
    for _ in range(_COLD_TRIES if wait_if_cold else 0):
        if answer.ok or not (yield from _warmed(answer, on_change)):
            break
        answer = yield from open_stream(call)
    if not answer.ok:
        raise read_error(answer)
    yield from _read_pieces(task)


def _read_pieces(task: str) -> Stream[Token | Done]:
    parser = Parser()
    lost = HostLost(f"the stream of {task} ended before its terminal event")
    try:
        while (chunk := (yield from read_chunk())) is not None:
            for message in parser.feed(chunk):
                piece = _read_piece(message)
                if piece is not None:
                    yield Emit(item=piece)
                if isinstance(piece, Done):
                    return
    except Unreachable as error:
        raise lost from error
    raise lost


def _read_piece(message: Message) -> Token | Done | None:
    """None for an event that only a newer service knows."""
    if message.type == "token":
        return read_record(Token, message.read_object())
    if message.type == "done":
        data = message.read_object()
        return Done(result=data["result"] if isinstance(data.get("result"), dict) else data)
    if message.type == "error":
        raise error_of(message.read_object())
    return None


def _warmed(answer: Answer, on_change: OnChange | None) -> Conversation[bool]:
    """True once the load job that a cold answer names has succeeded; raises the job's error."""
    if not isinstance(read_error(answer), ModelCold) or (named := find_job(answer)) is None:
        return False
    job_id = named if isinstance(named, str) else read_record(Job, named).id
    yield from wait(job_id, on_change=on_change)
    return True


def _call(
    model: str,
    task: str,
    payload: Mapping[str, Any],
    request: Mapping[str, Any],
    *,
    accept: str,
    watched: bool,
) -> Call:
    """`watched`: a cold model's load is watched from its start, not waited for by the service."""
    parsed = parse_record(LoadRequest, {**request, "model": model})
    check_supported(parsed)
    path = f"{API}/tasks/{quote_name(task, 'task')}"
    if "/" in task:
        raise BadRequest(f"{task!r} is not the name of a task")
    return Call(
        method="POST",
        path=path,
        body={
            "model": model,
            "request": parsed.model_dump(mode="json", exclude_unset=True),
            "payload": dict(payload),
            **({"patience_seconds": 0} if watched else {}),
        },
        headers={"Accept": accept},
        timeout_seconds=_ANSWER_SECONDS,
    )
