"""The doorbell on a real broker: which queue a bell is in, and what a message holds."""

import json
from pathlib import Path

import pytest
import redis

from warmrack_daemon.embedded_broker import EmbeddedBroker
from warmrack_store.brokers.celery_doorbell import (
    BELL,
    RESOLVE_QUEUE,
    CeleryDoorbell,
    node_queue,
)
from warmrack_store.errors import StoreUnavailable


@pytest.mark.parametrize(
    ("node", "queue"), [(None, RESOLVE_QUEUE), ("n0", node_queue("n0")), ("a.b-c", "node.a.b-c")]
)
def test_a_bell_is_an_empty_message_in_the_queue_of_those_it_is_for(
    broker: str, node: str | None, queue: str
) -> None:
    CeleryDoorbell(broker).ring(node)
    with redis.Redis.from_url(broker) as client:
        (message,) = client.lrange(queue, 0, -1)
    envelope = json.loads(message)
    assert envelope["headers"]["task"] == BELL
    assert envelope["content-type"] == "application/json"
    assert (envelope["headers"]["argsrepr"], envelope["headers"]["kwargsrepr"]) == ("()", "{}")


def test_a_broker_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        CeleryDoorbell(EmbeddedBroker(tmp_path).url).ring(None)


def test_a_wrong_password_is_no_way_in(broker: str) -> None:
    head, _, tail = broker.rpartition("@")
    with pytest.raises(StoreUnavailable):
        CeleryDoorbell(f"{head}x@{tail}").ring(None)
