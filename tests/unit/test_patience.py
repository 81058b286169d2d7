"""When a source is asked again."""

from warmrack_workers.fetch.patience import Patience


def test_delays_double_with_jitter_over_their_upper_half() -> None:
    patience = Patience(tries=5, first_seconds=1.0)
    assert [patience.find_delay_seconds(n, None, 0.0) for n in range(1, 6)] == [0.5, 1, 2, 4, None]
    assert patience.find_delay_seconds(3, None, 0.5) == 3.0


def test_what_the_hub_asks_for_is_waited_unless_it_is_too_long() -> None:
    patience = Patience(longest_seconds=60.0)
    assert patience.find_delay_seconds(1, 20.0, 0.9) == 20.0
    assert patience.find_delay_seconds(1, 61.0, 0.9) is None
