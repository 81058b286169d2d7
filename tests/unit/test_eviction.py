"""Which residents go, and which never do."""

from dataclasses import replace
from typing import Any

from warmrack_store.eviction import DEFAULT_POLICY, ResidentView, plan_victims

NOW = 1000.0


def resident(name: str, size_bytes: int, idle_seconds: float, **fields: Any) -> ResidentView:
    return ResidentView(
        id=name,
        key=f"key-{name}",
        device="cpu:0",
        size_bytes=size_bytes,
        last_used_at=NOW - idle_seconds,
        load_seconds=1.0,
        **fields,
    )


def victims(needed_bytes: int, *residents: ResidentView) -> list[str] | None:
    plan = plan_victims("lru", needed_bytes, residents, NOW)
    return None if plan is None else [victim.id for victim in plan]


def test_what_was_used_longest_ago_goes_first() -> None:
    assert victims(10, resident("new", 10, 1), resident("old", 10, 9)) == ["old"]


def test_nobody_goes_where_there_is_room() -> None:
    assert victims(0, resident("old", 10, 9)) == []


def test_a_pinned_a_leased_and_a_busy_resident_are_never_victims() -> None:
    kept = (
        resident("pinned", 10, 9, pinned=True),
        resident("leased", 10, 9, leased_until=NOW + 1),
        resident("busy", 10, 9, in_flight=1),
    )
    assert victims(10, *kept, resident("free", 10, 1)) == ["free"]
    assert victims(11, *kept, resident("free", 10, 1)) is None


def test_a_lease_that_ran_out_protects_no_longer() -> None:
    assert victims(10, resident("a", 10, 1, leased_until=NOW)) == ["a"]


def test_a_small_victim_that_a_later_one_makes_needless_is_spared() -> None:
    assert victims(10, resident("small", 2, 9), resident("large", 10, 5)) == ["large"]


def test_the_last_victim_stays_where_the_earlier_ones_are_needed_with_it() -> None:
    assert victims(12, resident("small", 2, 9), resident("large", 10, 5)) == ["small", "large"]


def test_a_resident_without_bytes_is_no_victim() -> None:
    assert victims(5, resident("empty", 0, 99), resident("full", 5, 1)) == ["full"]


def test_equal_residents_go_by_their_id() -> None:
    assert victims(5, resident("b", 5, 1), resident("a", 5, 1)) == ["a"]


def first_by_gdsf(*residents: ResidentView) -> str:
    plan = plan_victims("gdsf", 1, residents, NOW)
    assert plan is not None
    return plan[0].id


def test_gdsf_lets_go_first_what_is_cheapest_to_bring_back_for_its_bytes() -> None:
    assert DEFAULT_POLICY == "gdsf"
    slow, large = resident("slow", 10, 9), resident("large", 1000, 9)
    assert first_by_gdsf(slow, large) == "large"
    costly = replace(resident("costly", 10, 9), load_seconds=50.0)
    assert first_by_gdsf(costly, slow) == "slow"


def test_gdsf_forgets_what_is_idle_for_long_and_keeps_what_is_used_often() -> None:
    costly = replace(resident("costly", 10, 900), load_seconds=50.0)
    assert first_by_gdsf(costly, resident("fresh", 10, 1)) == "costly"
    often = resident("often", 10, 9, uses=20)
    assert first_by_gdsf(often, resident("once", 10, 9)) == "once"
