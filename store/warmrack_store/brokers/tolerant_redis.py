"""Kombu's transport for Redis, except that a message nobody can read is dropped.

Kombu takes a message off its queue, reads it, and lets the error out that it meets there; Celery's
worker ends with it, and whoever may write to the queue can stop the worker with one line.
"""

from queue import Empty
from typing import Any

import structlog
from kombu.transport import redis

log = structlog.get_logger()


class Channel(redis.Channel):  # type: ignore[misc]  # kombu has no types
    """Reads the queues; what is not JSON never becomes a message."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except ValueError as error:  # JSON's and UTF-8's errors
            _note_dropped(error)
            raise Empty from error


class Transport(redis.Transport):  # type: ignore[misc]
    """Hands messages to their consumer; JSON that is no message is not handed on."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            super()._deliver(message, queue)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            _note_dropped(error)


def _note_dropped(error: Exception) -> None:
    log.warning(
        "A message that cannot be read was dropped.", action="message-dropped", error=repr(error)
    )
