"""A task job on its host: its result, and its end by cancel while the host says nothing."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.services.hosts import runtime_folder
from warmrack_store.errors import Cancelled, HostLost
from warmrack_store.ledgers.claims import Claim
from warmrack_workers.activity import Activity
from warmrack_workers.task_runs import run_task

_SECONDS = 30.0
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_DONE = b'event: done\ndata: {"text": "x"}\n\n'


class Host:
    """A host's socket whose other end the test holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(_SECONDS)
        self._threads = ThreadPoolExecutor(1)

    def start(self, activity: Activity) -> "Future[dict[str, Any]]":
        """Run a task; returns when its request has come whole."""
        result = self._threads.submit(run_task, activity, str(self.path), "embed", {"texts": []})
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(_SECONDS)
        received = b""
        while not received.endswith(b'{"texts":[]}'):
            received += self._connection.recv(4096)
        return result

    def say(self, data: bytes) -> None:
        self._connection.sendall(data)

    def hears_the_end(self) -> bool:
        ended = self._connection.recv(1) == b""
        self.hang_up()
        return ended

    def hang_up(self) -> None:
        self._connection.close()

    def close(self) -> None:
        self._listener.close()
        self._threads.shutdown()


@pytest.fixture
def host() -> Iterator[Host]:
    with runtime_folder() as folder:
        made = Host(folder / "h.sock")
        yield made
        made.close()


@pytest.fixture
def activity() -> Activity:
    return Activity(claim=Claim(job_id="job1", holder="h0", epoch=1))


def test_the_result_is_what_comes_with_done(host: Host, activity: Activity) -> None:
    running = host.start(activity)
    host.say(_HEAD + b"%x\r\n%s\r\n0\r\n\r\n" % (len(_DONE), _DONE))
    assert running.result(_SECONDS) == {"text": "x"}
    host.hang_up()


def test_a_host_that_hangs_up_is_lost(host: Host, activity: Activity) -> None:
    running = host.start(activity)
    host.say(_HEAD)
    host.hang_up()
    assert isinstance(running.exception(_SECONDS), HostLost)


@pytest.mark.parametrize("said", [b"", _HEAD], ids=["no answer yet", "no token yet"])
def test_a_cancel_is_heard_while_the_host_says_nothing(
    host: Host, activity: Activity, said: bytes
) -> None:
    running = host.start(activity)
    host.say(said)
    asked_at = time.monotonic()
    activity.cancel("cancelled")
    assert isinstance(running.exception(_SECONDS), Cancelled)
    assert time.monotonic() - asked_at < 1.0
    assert host.hears_the_end()


def test_a_task_of_a_job_that_is_cancelled_already_does_not_wait(
    host: Host, activity: Activity
) -> None:
    activity.cancel("cancelled")
    with pytest.raises(Cancelled):
        run_task(activity, str(host.path), "embed", {"texts": []})
