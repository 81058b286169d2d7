"""Wake-ups over a real broker: heard, lost, and heard again after the broker came back."""

import asyncio
import queue
import subprocess
import threading
from pathlib import Path

import pytest
import redis

from tests.services.listening import await_hearing, listening, next_id
from tests.services.stores import await_broker
from warmrack_daemon.embedded_broker import EmbeddedBroker
from warmrack_daemon.waiters import Waiters
from warmrack_store.brokers.wakeups import Wakeups

_POLL_SECONDS = 1.0


async def _watch_after(wakeups: Wakeups, publish: str | None, watched: str) -> float:
    """Seconds until a watch of one job returns, once it listens and `publish` was said."""
    waiters = Waiters(wakeups)
    waiters.start()
    loop = asyncio.get_running_loop()
    try:
        async with waiters.watch("first") as first:
            while True:  # until the listener hears
                wakeups.publish("first")
                started = loop.time()
                await first.changed(0.2)
                if loop.time() - started < 0.15:
                    break
        async with waiters.watch(watched) as watch:
            if publish is not None:
                loop.run_in_executor(None, wakeups.publish, publish)
            started = loop.time()
            await watch.changed(30.0)
            return loop.time() - started
    finally:
        waiters.stop()


def test_a_published_id_is_heard(broker: str) -> None:
    wakeups = Wakeups(broker)
    with listening(wakeups) as heard:
        wakeups.publish("job_1")
        assert next_id(heard) == "job_1"
    wakeups.close()


def test_a_waiter_wakes_when_its_job_changes(broker: str) -> None:
    wakeups = Wakeups(broker)
    assert asyncio.run(_watch_after(wakeups, "job_1", "job_1")) < 0.7 * _POLL_SECONDS
    wakeups.close()


@pytest.mark.parametrize("publish", [None, "job_of_somebody_else"])
def test_a_lost_wake_up_costs_one_poll(broker: str, publish: str | None) -> None:
    wakeups = Wakeups(broker)
    waited_seconds = asyncio.run(_watch_after(wakeups, publish, "job_1"))
    assert 0.9 * _POLL_SECONDS <= waited_seconds < 5 * _POLL_SECONDS
    wakeups.close()


def test_a_watch_returns_when_its_time_is_up(broker: str) -> None:
    async def run() -> float:
        waiters = Waiters(Wakeups(broker))
        started = asyncio.get_running_loop().time()
        async with waiters.watch("job_1") as watch:
            await watch.changed(0.05)
        return asyncio.get_running_loop().time() - started

    assert asyncio.run(run()) < 0.8


def test_a_broker_that_is_away_stops_no_publisher(tmp_path: Path) -> None:
    away = Wakeups(EmbeddedBroker(tmp_path).url)
    away.publish("job_1")
    with pytest.raises(redis.RedisError):
        away.ping()
    away.close()


def test_a_listener_hears_again_after_the_broker_was_killed(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    command = broker.command()
    wakeups = Wakeups(broker.url)
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    heard: queue.Queue[str] = queue.Queue()
    stop = threading.Event()
    listener = threading.Thread(target=wakeups.listen, args=(heard.put, stop))
    try:
        await_broker(broker.url)
        listener.start()
        await_hearing(wakeups, heard)
        server.kill()
        server.wait()
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        await_broker(broker.url)
        await_hearing(wakeups, heard)
        wakeups.publish("job_1")
        assert next_id(heard) == "job_1"
    finally:
        stop.set()
        server.kill()
        server.wait()
        listener.join(10)
        wakeups.close()
