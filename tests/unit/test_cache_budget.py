"""What goes from a store's disk, and what never does."""

import pytest

from warmrack_store.cache_budget import (
    OUTSIDE,
    BytesView,
    DiskView,
    Limits,
    SnapshotView,
    count_room,
    plan_evictions,
    plan_low_watermark,
    plan_room,
)
from warmrack_store.errors import DiskFull
from warmrack_store.eviction import POLICIES

NOW = 1000.0


def snapshot(name: str, *, idle: float = 10.0, holds: tuple[str, ...] = ()) -> SnapshotView:
    return SnapshotView(
        repository=name,
        commit="c",
        size_bytes=100,
        last_used_at=NOW - idle,
        load_seconds=1.0,
        holds=holds,
    )


def held_by(size_bytes: int, *names: str) -> BytesView:
    return BytesView(
        size_bytes=size_bytes,
        users=frozenset(name if name == OUTSIDE else f"{name}@c" for name in names),
    )


def disk(used: int, *, free: int = 10_000, promised: int = 0) -> DiskView:
    return DiskView(
        used_bytes=used,
        free_bytes=free,
        total_bytes=20_000,
        promised_bytes=promised,
        promised_disk_bytes=promised,
    )


LIMITS = Limits(quota_bytes=1000, high_share=0.9, low_share=0.8)
A, B, C = snapshot("a", idle=30), snapshot("b", idle=20), snapshot("c", idle=10)
FILES = [held_by(300, "a"), held_by(300, "b"), held_by(300, "c")]


def room(need: int, at: DiskView, *ones: SnapshotView, limits: Limits = LIMITS) -> list[str]:
    plan = plan_room(need, need, at, limits, ones, FILES, policy="lru", now=NOW, node="n0")
    return [victim.snapshot.repository for victim in plan.victims]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_somebody_needs_is_never_a_victim(policy: str) -> None:
    held = snapshot("a", idle=900, holds=("in memory as m1",))
    plan = plan_evictions(500, [held, B, C], FILES, policy, NOW)
    assert {victim.snapshot.repository for victim in plan.victims} == {"b", "c"}
    assert plan.kept == (held,)


def test_shared_bytes_count_once_and_go_with_their_last_user() -> None:
    shared = [held_by(400, "a", "b"), held_by(10, "a"), held_by(10, "b")]
    plan = plan_evictions(400, [A, B], shared, "lru", NOW)
    assert [(v.snapshot.repository, v.freed_bytes) for v in plan.victims] == [("a", 10), ("b", 410)]


def test_bytes_with_a_name_outside_or_a_user_that_is_not_ours_free_nothing() -> None:
    files = [held_by(400, "a", OUTSIDE), held_by(400, "a", "foreign")]
    plan = plan_evictions(1, [A], files, "lru", NOW)
    assert (plan.victims, plan.reached) == ((), False)


def test_nothing_goes_that_does_not_help() -> None:
    files = [held_by(10, "a"), held_by(500, "b")]
    plan = plan_evictions(400, [A, B], files, "lru", NOW)
    assert [victim.snapshot.repository for victim in plan.victims] == ["b"]


def test_below_the_high_watermark_nothing_goes_and_above_it_down_to_the_low_one() -> None:
    assert room(0, disk(900), A, B, C) == []
    assert room(1, disk(900), A, B, C) == ["a"]
    assert room(300, disk(900), A, B, C) == ["a", "b"]


def test_the_quota_is_kept_where_the_low_watermark_is_out_of_reach() -> None:
    needed = snapshot("b", holds=("needed by job j1",))
    assert room(100, disk(1000), A, needed) == ["a"]


def test_what_others_were_promised_is_no_room_any_more() -> None:
    assert room(300, disk(300), A) == []
    with pytest.raises(DiskFull, match="300 bytes are needed on node n0"):
        room(300, disk(300, promised=701), snapshot("a", holds=("claimed by n1",)))


def test_a_refusal_names_need_room_node_and_what_holds_the_rest() -> None:
    held = snapshot("org/big", holds=("in memory as m1",))
    with pytest.raises(DiskFull, match=r"600 bytes .* n0.* 400 bytes.*org/big \(in memory as m1\)"):
        room(600, disk(600), held)


def test_without_a_quota_a_full_disk_is_refused_and_nothing_goes() -> None:
    free = Limits(quota_bytes=None, high_share=0.9, low_share=0.8)
    assert room(100, disk(900, free=100), A, limits=free) == []
    with pytest.raises(DiskFull, match="its disk has 100 bytes"):
        room(101, disk(900, free=100), A, limits=free)


def test_with_a_quota_a_full_disk_lets_snapshots_go_too() -> None:
    assert room(200, disk(300, free=100), A) == ["a"]


def test_the_low_watermark_is_of_the_whole_disk_where_there_is_no_quota() -> None:
    free = Limits(quota_bytes=None, high_share=0.9, low_share=0.5)
    plan = plan_low_watermark(disk(900, free=9_900), free, [A, B], FILES, policy="lru", now=NOW)
    assert (plan.needed_bytes, len(plan.victims)) == (100, 1)


def test_room_is_what_is_left_and_what_may_go() -> None:
    held = snapshot("b", holds=("in memory as m1",))
    assert count_room(disk(600), LIMITS, [A, held], FILES) == 400 + 300
    assert count_room(disk(600, free=50), LIMITS, [A, held], FILES) == 50 + 300
