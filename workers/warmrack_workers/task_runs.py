"""A task job on a warm model: sent to its host, its result awaited, its end by cancel heard."""

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx

from warmrack_store.errors import HostLost, WarmrackError
from warmrack_workers.activity import Activity

_READ_SECONDS = 600.0
_CONNECTED = "connection.connect_unix_socket.complete"
"""httpcore's trace event, whose return value is the stream on the socket."""


class _Connection:
    """The socket of a request: shut from another thread, it ends the read that waits on it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._shut = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event == _CONNECTED:
            self._socket = info["return_value"].get_extra_info("socket")
            if self._shut:
                self.shut()

    def shut(self) -> None:
        self._shut = True
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)


def run_task(
    activity: Activity, socket_path: str, task: str, payload: Mapping[str, Any]
) -> dict[str, Any]:
    """The task's result. A stop of the activity shuts the connection, by which the host hears of it
    too, so it does not matter how long the host says nothing."""
    connection = _Connection()
    try:
        with (
            activity.interrupted_by(connection.shut),
            httpx.Client(
                transport=httpx.HTTPTransport(uds=socket_path),
                timeout=_READ_SECONDS,
                trust_env=False,
            ) as client,
            client.stream(
                "POST",
                f"http://host/tasks/{task}",
                json=payload,
                headers={"accept": "text/event-stream"},
                extensions={"trace": connection.trace},
            ) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise _refusal(answer)
            return _read_result(activity, answer)
    except httpx.HTTPError as error:
        activity.check()
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
    activity.check()
    raise HostLost("the host ended in the middle of the task")


def _refusal(answer: httpx.Response) -> WarmrackError:
    problem = answer.json()
    return WarmrackError.from_problem(problem)
