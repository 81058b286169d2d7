"""Durations and sizes: read as written, shown as read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmrack_store.durations import format_duration, format_size, parse_duration, parse_size
from warmrack_store.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        (" 10m ", 600),
        ("2 h", 7200),
        ("1d", 86400),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("7", 7),
        ("1k", 1000),
        ("1KiB", 1024),
        ("4GiB", 4 * 2**30),
        ("1.5 GB", 1_500_000_000),
        ("2t", 2 * 10**12),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes_are_read_to_the_byte(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "+1", "1e3", "1,5", "1.", ".5", "nan", "inf", "1 m s", "m", "9" * 400]
)
def test_what_is_neither_is_refused_with_a_hint(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with pytest.raises(BadRequest) as refused:
            parse(text)
        assert refused.value.hint


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.085, "85 ms"), (3.21, "3.2 s"), (250, "4m10s"), (7500, "2h05m"), (3599.6, "1h00m")],
)
def test_durations_are_shown_for_people(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**40, "1.00 TiB"), (2**50, "1024.00 TiB")],
)
def test_sizes_are_shown_for_people(size_bytes: int, shown: str) -> None:
    assert format_size(size_bytes) == shown


@given(size_bytes=st.integers(0, 10**17))
def test_any_number_of_bytes_is_read_back_exactly(size_bytes: int) -> None:
    assert parse_size(str(size_bytes)) == parse_size(f"{size_bytes}B") == size_bytes
