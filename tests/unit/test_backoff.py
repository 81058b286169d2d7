"""How long a job waits after a transient failure."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmrack_workers.endings import backoff_seconds

_LONGEST_SECONDS = 300.0


@given(attempt=st.integers(1, 100), asked=st.none() | st.floats(0, 10_000))
def test_the_wait_is_bounded_and_never_shorter_than_asked(
    attempt: int, asked: float | None
) -> None:
    waited = backoff_seconds(attempt, asked)
    assert (asked or 0.0) <= waited <= max(_LONGEST_SECONDS, asked or 0.0)
    if asked is None:
        assert waited <= min(_LONGEST_SECONDS, 2.0 ** (attempt - 1))


def test_waits_grow_with_the_attempts_and_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", random.Random(7).uniform)
    means = []
    for attempt in (1, 4, 8):
        waits = [backoff_seconds(attempt, None) for _ in range(200)]
        assert len(set(waits)) > 150
        means.append(sum(waits) / len(waits))
    assert means[0] < 1 < means[1] < 8 < means[2]
