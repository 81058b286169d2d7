"""How the number of connections follows what they bring."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from warmrack_workers.fetch.pace import Pace

MIB = 2.0**20


def follow(pace: Pace, rate_of: Callable[[int], float], looks: int) -> list[int]:
    seen = []
    for _ in range(looks):
        pace = pace.look(rate_of(pace.connections))
        seen.append(pace.connections)
    return seen


def test_where_each_connection_is_limited_all_are_used_after_two_looks() -> None:
    assert follow(Pace(), lambda connections: connections * 25 * MIB, 10) == [4, *[8] * 9]


def test_where_the_line_is_full_it_goes_back_to_two_and_rarely_tries_one_more() -> None:
    seen = follow(Pace(), lambda _: 100 * MIB, 60)
    assert seen[:4] == [4, 4, 4, 2]
    assert set(seen[4:]) == {2, 3}
    assert seen.count(3) <= 6


def test_a_line_that_is_full_with_the_fifth_connection_gets_five() -> None:
    seen = follow(Pace(), lambda connections: min(connections, 4.5) * 10 * MIB, 200)
    assert seen.count(5) > 150


def test_connections_that_take_their_time_to_begin_are_waited_for() -> None:
    pace = Pace().look(50 * MIB).look(50 * MIB).look(99 * MIB)
    assert pace.connections == 8


def test_an_error_halves_them_and_one_is_left() -> None:
    pace = Pace(connections=8)
    assert [(pace := pace.back_off()).connections for _ in range(4)] == [4, 2, 1, 1]


def test_nothing_that_came_adds_nothing() -> None:
    assert follow(Pace(), lambda _: 0.0, 5) == [2] * 5


@given(
    most=st.integers(1, 16),
    steps=st.lists(st.one_of(st.none(), st.floats(0, 1e10)), max_size=50),
)
def test_there_is_always_one_and_never_more_than_the_cap(
    most: int, steps: list[float | None]
) -> None:
    pace = Pace(connections=min(2, most), most=most)
    for rate in steps:
        pace = pace.back_off() if rate is None else pace.look(rate)
        assert 1 <= pace.connections <= most
