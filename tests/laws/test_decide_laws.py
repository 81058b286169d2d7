"""Laws of what a node decides: whatever is in memory and whatever is wanted."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmrack_store.states import ResidentState
from warmrack_workers.decide import Plan, Seat, Want, decide

on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOW = 1000.0
LEASE_SECONDS = 30.0
KEYS = ("a", "b", "c", "d", "e")
LIVE = [state for state in ResidentState if state.live]

budgets_of_a_node = st.dictionaries(
    st.sampled_from(["cpu:0", "cpu:1"]), st.sampled_from([0, 4, 12, 13, 20, 40]), min_size=1
)


SIZES = {"a": 1, "b": 4, "c": 8, "d": 12, "e": 30}
"""What is of the same key is the same weights, so it has one size."""


@st.composite
def lists_of_wants(draw: st.DrawFn) -> list[Want]:
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=6))
    return [
        Want(
            job_id=f"job{number}",
            epoch=1,
            key=key,
            size_bytes=SIZES[key],
            rank=draw(st.integers(0, 2)),
            since=draw(st.floats(0, NOW)),
        )
        for number, key in enumerate(keys)
    ]


@st.composite
def lists_of_seats(draw: st.DrawFn, *, pins: bool = True) -> list[Seat]:
    """Some seats, a live one at most of each key, as the loop itself brings them about."""
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=5, unique=True))
    return [
        Seat(
            id=f"seat-{key}",
            key=key,
            device=draw(st.sampled_from(["cpu:0", "cpu:1"])),
            size_bytes=SIZES[key],
            state=draw(st.sampled_from(LIVE)),
            in_flight=draw(st.sampled_from([0, 0, 1])),
            last_used_at=draw(st.floats(0, NOW)),
            leased_until=draw(st.sampled_from([0.0, NOW, NOW + LEASE_SECONDS])),
            keep_alive_seconds=draw(st.sampled_from([0.0, 600.0])),
            pinned=pins and draw(st.booleans()),
            drain_requested=draw(st.sampled_from([False, False, True])),
        )
        for key in keys
    ]


nodes = st.tuples(budgets_of_a_node, lists_of_seats(), lists_of_wants())
Node = tuple[dict[str, int], list[Seat], list[Want]]


def used_bytes(seats: list[Seat], device: str) -> int:
    return sum(seat.size_bytes for seat in seats if seat.device == device)


@on_a_busy_machine
@given(node=nodes)
def test_what_somebody_has_a_right_to_never_drains_unasked(node: Node) -> None:
    for seat, cause in decide(*node, NOW).drains:
        held = seat.pinned or seat.in_flight > 0 or seat.leased_until > NOW
        assert seat.drain_requested or not held, cause
        assert seat.drain_requested or seat.state is ResidentState.WARM, cause
        assert seat.state is not ResidentState.DRAINING, "it was told already"


@on_a_busy_machine
@given(node=nodes)
def test_no_plan_starts_more_than_a_device_has_free_now(node: Node) -> None:
    budgets, seats, wants = node
    plan = decide(budgets, seats, wants, NOW)
    for device in {device for _, device in plan.starts}:
        started_bytes = sum(want.size_bytes for want, where in plan.starts if where == device)
        assert used_bytes(seats, device) + started_bytes <= budgets[device]


@on_a_busy_machine
@given(node=nodes)
def test_weights_that_stay_or_start_are_never_started_twice(node: Node) -> None:
    budgets, seats, wants = node
    plan = decide(budgets, seats, wants, NOW)
    started = [want.key for want, _ in plan.starts]
    assert len(set(started)) == len(started)
    leaving = {seat.id for seat, _ in plan.drains}
    staying = {
        seat.key
        for seat in seats
        if seat.id not in leaving and seat.state is not ResidentState.DRAINING
    }
    assert not staying & set(started)


@on_a_busy_machine
@given(node=nodes)
def test_a_want_gets_one_answer_at_most_and_only_one_that_is_true(node: Node) -> None:
    budgets, seats, wants = node
    plan = decide(budgets, seats, wants, NOW)
    answered = [want for want, _ in (*plan.joins, *plan.starts, *plan.refusals)]
    assert len({want.job_id for want in answered}) == len(answered)
    assert all(want in wants for want in answered)
    for want, seat in plan.joins:
        assert (seat.key, seat.state) == (want.key, ResidentState.WARM)
        assert seat in seats
        assert not seat.drain_requested
    left = {
        device: budget - sum(seat.size_bytes for seat in seats if _stays_pinned(seat, device))
        for device, budget in budgets.items()
    }
    assert all(want.size_bytes > max(left.values()) for want, _ in plan.refusals)


def _stays_pinned(seat: Seat, device: str) -> bool:
    going = seat.drain_requested or seat.state is ResidentState.DRAINING
    return seat.pinned and seat.device == device and not going


@on_a_busy_machine
@given(node=nodes, data=st.data())
def test_the_order_in_which_things_are_listed_changes_nothing(
    node: Node, data: st.DataObject
) -> None:
    budgets, seats, wants = node
    plan = decide(budgets, seats, wants, NOW)
    mixed = decide(
        dict(data.draw(st.permutations(list(budgets.items())))),
        data.draw(st.permutations(seats)),
        data.draw(st.permutations(wants)),
        NOW,
    )
    assert (mixed.joins, mixed.starts) == (plan.joins, plan.starts)
    said = [[(want, error.message) for want, error in one.refusals] for one in (mixed, plan)]
    assert said[0] == said[1]
    assert sorted(mixed.drains, key=repr) == sorted(plan.drains, key=repr)


@on_a_busy_machine
@given(node=nodes)
def test_a_plan_that_is_under_way_asks_for_no_further_victims(node: Node) -> None:
    budgets, seats, wants = node
    plan = decide(budgets, seats, wants, NOW)
    leaving = {seat.id for seat, _ in plan.drains}
    after = [
        replace(seat, state=ResidentState.DRAINING) if seat.id in leaving else seat
        for seat in seats
    ]
    left = [want for want in wants if want not in [one for one, _ in plan.joins]]
    started = {want.key for want, _ in plan.starts}
    if not started and len(left) == len(wants):
        assert decide(budgets, after, left, NOW).drains == ()


@on_a_busy_machine
@given(node=nodes)
def test_a_seat_that_is_joined_is_not_drained_by_the_same_plan(node: Node) -> None:
    plan = decide(*node, NOW)
    joined = {seat.id for _, seat in plan.joins}
    assert not joined & {seat.id for seat, _ in plan.drains}


def fitting(budgets: Mapping[str, int], seats: list[Seat]) -> list[Seat]:
    """The seats that the budgets have room for, the first ones first."""
    kept: list[Seat] = []
    for seat in seats:
        if used_bytes([*kept, seat], seat.device) <= budgets.get(seat.device, 0):
            kept.append(seat)
    return kept


class World:
    """A node whose hosts do what they are told at once, so that only decisions are in the way."""

    def __init__(self, budgets: Mapping[str, int], seats: list[Seat], wants: list[Want]) -> None:
        self.budgets = budgets
        self.seats = {seat.id: seat for seat in seats}
        self.wants = {want.job_id: want for want in wants}
        self.now = NOW
        self.served: set[str] = set()
        self.refused: set[str] = set()

    def turn(self) -> None:
        """What is decided now, and what has come of it once every lease has run out."""
        before = list(self.seats.values())
        plan = decide(self.budgets, before, list(self.wants.values()), self.now)
        self.seats = {
            seat.id: replace(seat, state=ResidentState.WARM, in_flight=0)
            for seat in before
            if seat.state is not ResidentState.DRAINING
        }
        self._carry_out(plan)
        self.now += LEASE_SECONDS + 1

    def _carry_out(self, plan: Plan) -> None:
        for want, _ in plan.joins:
            self.served.add(self.wants.pop(want.job_id).job_id)
        for want, _ in plan.refusals:
            self.refused.add(self.wants.pop(want.job_id).job_id)
        for seat, _ in plan.drains:
            self.seats[seat.id] = replace(self.seats[seat.id], state=ResidentState.DRAINING)
        for want, device in plan.starts:
            fresh = Seat(
                id=f"{want.key}@{self.now}",
                key=want.key,
                device=device,
                size_bytes=want.size_bytes,
                state=ResidentState.LOADING,
                last_used_at=self.now,
                leased_until=self.now + LEASE_SECONDS,
                keep_alive_seconds=600.0,
            )
            self.seats[fresh.id] = fresh


@on_a_busy_machine
@given(budgets=budgets_of_a_node, seats=lists_of_seats(pins=False), wants=lists_of_wants())
def test_every_want_that_fits_is_served_once_leases_and_work_have_ended(
    budgets: dict[str, int], seats: list[Seat], wants: list[Want]
) -> None:
    world = World(budgets, fitting(budgets, seats), wants)
    for _ in range(4 * (len(wants) + 1)):
        world.turn()
    largest = max(budgets.values())
    assert world.served == {want.job_id for want in wants if want.size_bytes <= largest}
    assert world.refused == {want.job_id for want in wants if want.size_bytes > largest}
