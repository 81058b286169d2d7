"""A task job on a warm model: sent to its host, its result awaited, its end by cancel heard."""

import json
from collections.abc import Mapping
from typing import Any

import httpx

from warmrack_store.errors import HostLost, WarmrackError
from warmrack_workers.activity import Activity

_READ_SECONDS = 600.0


def run_task(
    activity: Activity, socket: str, task: str, payload: Mapping[str, Any]
) -> dict[str, Any]:
    """The task's result. The answer is read as a stream, so that a stop is heard at each token."""
    try:
        with (
            httpx.Client(
                transport=httpx.HTTPTransport(uds=socket), timeout=_READ_SECONDS, trust_env=False
            ) as client,
            client.stream(
                "POST",
                f"http://host/tasks/{task}",
                json=payload,
                headers={"accept": "text/event-stream"},
            ) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise _refusal(answer)
            return _read_result(activity, answer)
    except httpx.HTTPError as error:
        raise HostLost(f"the host ended in the middle of the task: {error}") from error


def _read_result(activity: Activity, answer: httpx.Response) -> dict[str, Any]:
    event = ""
    for line in answer.iter_lines():
        activity.check()
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event == "done":
            result: dict[str, Any] = json.loads(value)
            return result
        elif name == "data" and event == "error":
            raise WarmrackError.from_record(json.loads(value))
    raise HostLost("the host ended in the middle of the task")


def _refusal(answer: httpx.Response) -> WarmrackError:
    problem = answer.json()
    return WarmrackError.from_record({**problem, "message": problem.get("detail", "")})
