"""A quota on real processes: what is warm stays, what nobody needs goes, the rest is disk-full."""

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import BERT, LLAMA, SHARDED
from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.hub.control import Hub
from warmrack_store.errors import BadRequest, DiskFull

pytestmark = pytest.mark.slow
QUOTA_BYTES = 1_200_000


@pytest.fixture(scope="module")
def tight(hub: Hub) -> Iterator[Stack]:
    """One node whose cache holds one tiny model, but not two that share nothing."""
    with running_stack(hub, settings={"WARMRACK_CACHE_QUOTA": str(QUOTA_BYTES)}) as stack:
        yield stack


def test_a_warm_model_stays_and_what_needs_its_room_is_refused(tight: Stack) -> None:
    with tight.client() as client:
        client.wait(client.load(LLAMA).id, timeout_seconds=120)
        with pytest.raises(DiskFull, match=f"{LLAMA} .in memory as"):
            client.wait(client.prefetch(SHARDED).id, timeout_seconds=60)
        with pytest.raises(BadRequest, match="is in use: in memory as"):
            client.remove_snapshots(LLAMA)
    code, found = tight.run_json("cache", "evict", "--to-low-watermark", "--dry-run")
    assert (code, found["items"][0]["gone"]) == (0, [])


def test_once_it_is_unloaded_it_makes_room(tight: Stack) -> None:
    with tight.client() as client:
        client.unload(LLAMA)
        client.wait(client.prefetch(SHARDED).id, timeout_seconds=60)
        names = {one.repository for one in client.snapshots()}
    assert names == {SHARDED}
    _, found = tight.run_json("cache", "df")
    assert found["items"][0]["used_bytes"] <= QUOTA_BYTES


def test_rm_tells_what_went_and_a_second_one_that_there_is_none(tight: Stack) -> None:
    with tight.client() as client:
        client.wait(client.prefetch(BERT).id, timeout_seconds=60)
    shown = tight.run("cache", "rm", BERT)
    assert (shown.returncode, "went" in shown.stdout) == (0, True)
    assert tight.run("cache", "rm", BERT).returncode == 3
    wait_until("its folder is gone", lambda: not list(tight.cache_dir.glob("*bert*")) or None)
