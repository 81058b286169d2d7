"""A listener on the broker that is known to hear before a test goes on."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from warmrack_store.brokers.wakeups import Wakeups

_PROBE = "probe"
_SECONDS = 20.0


@contextmanager
def listening(wakeups: Wakeups) -> Iterator["queue.Queue[str]"]:
    """The ids heard from here on, in order."""
    heard: queue.Queue[str] = queue.Queue()
    stop = threading.Event()
    thread = threading.Thread(target=wakeups.listen, args=(heard.put, stop))
    thread.start()
    try:
        await_hearing(wakeups, heard)
        yield heard
    finally:
        stop.set()
        thread.join(_SECONDS)


def await_hearing(wakeups: Wakeups, heard: "queue.Queue[str]") -> None:
    """Until a published id is heard: a subscription tells nobody when it stands."""
    for _ in range(int(_SECONDS / 0.1)):
        wakeups.publish(_PROBE)
        try:
            heard.get(timeout=0.1)
        except queue.Empty:
            continue
        while not heard.empty():
            heard.get()
        return
    raise AssertionError("nobody listens")


def next_id(heard: "queue.Queue[str]") -> str:
    """The next id that is no probe."""
    while (job_id := heard.get(timeout=_SECONDS)) == _PROBE:
        pass
    return job_id
