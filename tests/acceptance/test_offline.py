"""Loads that may ask the Hub nothing, and loads that ask only what is not known."""

import pytest

from tests.acceptance.conftest import LLAMA, SHARDED
from tests.acceptance.stack import Stack
from warmrack_store.errors import OfflineMiss

NODE = ["node-0"]
NEVER_ASKED = "acme/never-asked"


@pytest.fixture
def cached(pool: Stack) -> str:
    with pool.client() as client:
        client.wait(client.prefetch(LLAMA, nodes=NODE).id, timeout_seconds=60)
    return LLAMA


def test_offline_load_sends_no_packet_to_the_hub(pool: Stack, cached: str) -> None:
    pool.hub.reset_counts()
    with pool.client() as client:
        job = client.wait(client.load(cached, network="offline", nodes=NODE).id, timeout_seconds=90)
        receipt = client.receipt(job.id)
    assert receipt.identical
    assert pool.hub.read_counts().requests() == 0


def test_offline_miss_names_what_is_missing_and_asks_nobody(pool: Stack) -> None:
    pool.hub.reset_counts()
    with pool.client() as client, pytest.raises(OfflineMiss, match="never asked"):
        client.wait(client.load(NEVER_ASKED, network="offline").id, timeout_seconds=30)
    assert pool.hub.read_counts().requests() == 0


def test_offline_names_a_file_that_left_the_cache(pool: Stack) -> None:
    with pool.client() as client:
        client.wait(client.prefetch(SHARDED, nodes=NODE).id, timeout_seconds=60)
    (snapshot,) = (pool.cache_dir / "models--acme--tiny-sharded" / "snapshots").iterdir()
    shard = sorted(snapshot.glob("*.safetensors"))[0]
    blob, kept = shard.resolve(), shard.read_bytes()
    blob.unlink()
    try:
        with pool.client() as client:
            job = client.prefetch(SHARDED, network="offline", nodes=NODE)
            with pytest.raises(OfflineMiss, match=shard.name):
                client.wait(job.id, timeout_seconds=30)
    finally:
        blob.write_bytes(kept)


def test_cached_first_asks_nothing_that_is_known_and_tells_the_age(
    pool: Stack, cached: str
) -> None:
    pool.hub.reset_counts()
    with pool.client() as client:
        found = client.explain(cached, network="cached_first")
    assert pool.hub.read_counts().requests() == 0
    (pinned,) = [line for line in found.trail if line.rule == "R3"]
    assert pinned.evidence.endswith("ago")
