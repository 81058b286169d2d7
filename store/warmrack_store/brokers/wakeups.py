"""Wake-ups over the broker's pub/sub: a job changed, look at it. A lost one costs one poll."""

import threading
from collections.abc import Callable

import redis

_CHANNEL = "warmrack.changed"
_TIMEOUT_SECONDS = 3.0
_POLL_SECONDS = 0.5


class Wakeups:
    """Publishes job ids, and calls a listener for each one heard."""

    def __init__(self, broker_url: str) -> None:
        self._redis = redis.Redis.from_url(
            broker_url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry_on_timeout=False,
        )

    def publish(self, job_id: str) -> None:
        """Tell whoever waits. Losing it is allowed: waiters poll once a second."""
        try:
            self._redis.publish(_CHANNEL, job_id)
        except redis.RedisError:
            return

    def listen(self, heard: Callable[[str], None], stop: threading.Event) -> None:
        """Call `heard(job_id)` until `stop`; reconnects by itself. Blocks: give it a thread."""
        while not stop.is_set():
            try:
                with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(_CHANNEL)
                    while not stop.is_set():
                        message = channel.get_message(timeout=_POLL_SECONDS)
                        if message:
                            heard(message["data"].decode())
            except redis.RedisError:
                stop.wait(_POLL_SECONDS)

    def ping(self) -> None:
        """Raises redis.RedisError where the broker does not answer."""
        self._redis.ping()

    def close(self) -> None:
        self._redis.close()
