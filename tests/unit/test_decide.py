"""What a node does about its residents, rule by rule; the numbers are those of `decide`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from warmrack_store.errors import WontFit
from warmrack_store.states import ResidentState
from warmrack_workers.decide import COMING, Plan, Seat, Want, decide

NOW = 1000.0
ONE = {"cpu:0": 10}
TWO = {"cpu:0": 10, "cpu:1": 10}
HELD: list[dict[str, Any]] = [{"pinned": True}, {"leased_until": NOW + 1}, {"in_flight": 1}]
"""Every way in which somebody has a right to a seat."""


def want(key: str, size_bytes: int = 10, *, rank: int = 1, since: float = 0.0) -> Want:
    return Want(
        job_id=f"job-{key}", epoch=1, key=key, size_bytes=size_bytes, rank=rank, since=since
    )


def seat(
    key: str, size_bytes: int = 10, *, idle_seconds: float = 1.0, device: str = "cpu:0", **more: Any
) -> Seat:
    usual: dict[str, Any] = {"state": ResidentState.WARM, "keep_alive_seconds": 600.0}
    return Seat(
        id=f"seat-{key}",
        key=key,
        device=device,
        size_bytes=size_bytes,
        last_used_at=NOW - idle_seconds,
        **(usual | more),
    )


def plan(budgets: Mapping[str, int], seats: list[Seat], wants: list[Want]) -> Plan:
    return decide(budgets, seats, wants, NOW)


def drained(found: Plan) -> list[tuple[str, str]]:
    return [(one.key, cause) for one, cause in found.drains]


def started(found: Plan) -> list[tuple[str, str]]:
    return [(one.key, device) for one, device in found.starts]


def test_nothing_is_done_where_nothing_is_wanted() -> None:
    assert plan(ONE, [seat("a")], []) == Plan()


def test_1_a_seat_that_somebody_wants_gone_drains_whatever_holds_it() -> None:
    for held in HELD:
        assert drained(plan(ONE, [seat("a", drain_requested=True, **held)], [])) == [
            ("a", "unloaded")
        ]


def test_1_a_seat_drains_once_its_keep_alive_is_over() -> None:
    assert drained(plan(ONE, [seat("a", idle_seconds=599.0)], [])) == []
    assert drained(plan(ONE, [seat("a", idle_seconds=600.0)], [])) == [("a", "idle")]


@pytest.mark.parametrize("held", HELD)
def test_1_a_seat_that_somebody_holds_does_not_idle_out(held: dict[str, Any]) -> None:
    assert plan(ONE, [seat("a", idle_seconds=9999.0, **held)], []) == Plan()


def test_1_a_seat_that_is_wanted_again_does_not_idle_out() -> None:
    found = plan(ONE, [seat("a", idle_seconds=9999.0)], [want("a")])
    assert drained(found) == []
    assert [one.id for _, one in found.joins] == ["seat-a"]


def test_1_a_seat_that_drains_already_is_not_told_again() -> None:
    draining = seat("a", state=ResidentState.DRAINING, drain_requested=True)
    assert plan(ONE, [draining], []) == Plan()


def test_1_a_load_under_way_does_not_idle_out() -> None:
    for state in COMING:
        assert plan(ONE, [seat("a", idle_seconds=9999.0, state=state)], []) == Plan()


def test_2_every_want_for_warm_weights_joins_them() -> None:
    warm, other = seat("a", 4), replace(want("a", 4, rank=2), job_id="other")
    found = plan(ONE, [warm], [other, want("a", 4)])
    assert found == Plan(joins=((want("a", 4), warm), (other, warm)))


def test_2_a_draining_seat_is_not_joined_and_its_memory_not_promised() -> None:
    assert plan(ONE, [seat("a", state=ResidentState.DRAINING)], [want("a")]) == Plan()


@pytest.mark.parametrize("state", sorted(COMING))
def test_3_a_want_waits_for_weights_that_are_coming(state: ResidentState) -> None:
    assert plan(TWO, [seat("a", state=state)], [want("a")]) == Plan()


def test_4_a_want_that_no_device_could_ever_hold_is_refused_with_the_numbers() -> None:
    found = plan({"cpu:0": 2**30, "cpu:1": 2**31}, [], [want("a", 2**32)])
    [(refused, error)] = found.refusals
    assert refused.key == "a"
    assert isinstance(error, WontFit)
    assert "4.0 GiB" in error.message
    assert "cpu:0 1.0 GiB, cpu:1 2.0 GiB" in error.message


def test_4_a_node_without_devices_refuses_everything() -> None:
    assert len(plan({}, [], [want("a")]).refusals) == 1


def test_5_a_want_starts_on_the_device_with_the_most_free_memory() -> None:
    assert started(plan(TWO, [seat("x", 3)], [want("a", 5)])) == [("a", "cpu:1")]
    assert started(plan(TWO, [], [want("a", 5)])) == [("a", "cpu:0")]


def test_5_only_the_first_want_of_a_key_starts_it() -> None:
    second = replace(want("a", 4, since=5.0), job_id="second")
    found = plan(TWO, [], [second, want("a", 4)])
    assert [one.job_id for one, _ in found.starts] == ["job-a"]


def test_5_what_starts_in_this_plan_is_no_longer_free_for_the_next_want() -> None:
    found = plan(TWO, [], [want("a", 6, since=1.0), want("b", 6, since=2.0), want("c", 6, since=3)])
    assert started(found) == [("a", "cpu:0"), ("b", "cpu:1")]


def test_5_wants_go_by_rank_then_age() -> None:
    late, early, urgent = want("l", since=2.0), want("e", since=1.0), want("u", rank=0, since=9.0)
    assert started(plan(ONE, [], [late, early, urgent])) == [("u", "cpu:0")]
    assert started(plan(TWO, [], [late, early, urgent])) == [("u", "cpu:0"), ("e", "cpu:1")]


def test_5_a_seat_holds_its_memory_until_it_is_gone() -> None:
    for state in (*COMING, ResidentState.DRAINING):
        assert started(plan(ONE, [seat("x", 6, state=state)], [want("a", 5)])) == []


def test_6_what_was_used_longest_ago_makes_room() -> None:
    seats = [seat("new", 5, idle_seconds=1.0), seat("old", 5, idle_seconds=9.0)]
    found = plan(ONE, seats, [want("a", 5)])
    assert drained(found) == [("old", "evicted")]
    assert started(found) == [], "its memory is still in use"


def test_6_no_more_drains_than_is_missing() -> None:
    seats = [seat("x", 3, idle_seconds=9.0), seat("y", 3, idle_seconds=8.0)]
    assert drained(plan(ONE, seats, [want("a", 7)])) == [("x", "evicted")]


def test_6_what_drains_already_counts_as_coming_free() -> None:
    seats = [seat("gone", 5, state=ResidentState.DRAINING), seat("kept", 5, idle_seconds=99.0)]
    assert plan(ONE, seats, [want("a", 5)]) == Plan()
    assert drained(plan(ONE, seats, [want("a", 6)])) == [("kept", "evicted")]


def test_6_what_idles_out_in_this_plan_counts_as_coming_free_too() -> None:
    seats = [seat("idle", 5, idle_seconds=700.0), seat("kept", 5, idle_seconds=99.0)]
    assert drained(plan(ONE, seats, [want("a", 5)])) == [("idle", "idle")]


def test_6_room_is_made_where_the_fewest_bytes_go() -> None:
    seats = [seat("large", 9, idle_seconds=99.0), seat("small", 8, device="cpu:1")]
    assert drained(plan(TWO, seats, [want("a", 6)])) == [("small", "evicted")]


def test_4_a_want_for_which_too_much_is_pinned_is_refused_with_the_names() -> None:
    seats = [seat("x", 6, pinned=True), seat("y", 9, device="cpu:1", pinned=True), seat("z", 4)]
    [(refused, error)] = plan(TWO, seats, [want("a", 5)]).refusals
    assert (refused.key, type(error)) == ("a", WontFit)
    assert "seat-x, seat-y" in error.message
    assert plan(TWO, seats, [want("a", 4)]).refusals == ()


@pytest.mark.parametrize("going", [{"drain_requested": True}, {"state": ResidentState.DRAINING}])
def test_4_a_pinned_seat_that_goes_holds_nothing(going: dict[str, Any]) -> None:
    assert plan(ONE, [seat("x", pinned=True, **going)], [want("a")]).refusals == ()


def test_6_a_device_that_is_emptied_for_one_want_is_not_given_to_another() -> None:
    seats = [seat("x", 6)]
    found = plan(ONE, seats, [want("large", 8, rank=0), want("small", 3)])
    assert drained(found) == [("x", "evicted")]
    assert started(found) == []


def test_6_another_device_still_serves_those_behind_it() -> None:
    seats = [seat("x", 9), seat("y", 6, device="cpu:1", pinned=True)]
    found = plan(TWO, seats, [want("large", 8, rank=0), want("small", 3)])
    assert drained(found) == [("x", "evicted")]
    assert started(found) == [("small", "cpu:1")]


def test_6_nothing_drains_where_that_would_not_help() -> None:
    seats = [seat("free", 4, idle_seconds=99.0), seat("leased", 6, leased_until=NOW + 1)]
    assert plan(ONE, seats, [want("a", 5)]) == Plan()


def test_6_what_somebody_else_wants_is_no_victim_but_joined() -> None:
    found = plan(ONE, [seat("b", 8, idle_seconds=99.0)], [want("a", rank=0), want("b", 8)])
    assert drained(found) == []
    assert [one.key for _, one in found.joins] == ["b"]


@pytest.mark.parametrize("held", [held for held in HELD if "pinned" not in held])
def test_7_a_want_waits_for_a_device_full_of_what_others_hold(held: dict[str, Any]) -> None:
    assert plan(ONE, [seat("x", **held)], [want("a")]) == Plan()


def test_7_a_load_under_way_is_not_evicted() -> None:
    for state in COMING:
        assert plan(ONE, [seat("x", state=state)], [want("a")]) == Plan()


def test_7_a_lease_that_has_run_out_holds_nothing() -> None:
    assert drained(plan(ONE, [seat("x", leased_until=NOW)], [want("a")])) == [("x", "evicted")]


def test_7_a_want_that_waits_does_not_stop_a_smaller_one() -> None:
    seats = [seat("x", 6, leased_until=NOW + 1)]
    found = plan(ONE, seats, [want("large", 8, rank=0), want("small", 3)])
    assert started(found) == [("small", "cpu:0")]
