"""Records: closed, frozen, and the same text for equal values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from warmrack_store.errors import BadRequest
from warmrack_store.records import Record, canonical_json, check_json, digest_json, parse_record


class Point(Record):
    x: int
    name: str = "p"


class Line(Record):
    points: tuple[Point, ...]


def test_a_record_never_changes() -> None:
    point = Point(x=1)
    with pytest.raises(ValidationError):
        setattr(point, "x", 2)  # noqa: B010 (the type checker knows that it is wrong)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "x: "),
        ({"x": "one"}, "x: .*got 'one'"),
        ({"x": 1, "z": 2}, "z: "),
        ([], "body: "),
        (None, "body: "),
        ({"x": {1, 2}}, "not a JSON value"),
    ],
)
def test_the_first_bad_field_is_named_with_its_value(data: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        parse_record(Point, data)


def test_a_field_inside_is_named_by_its_path() -> None:
    with pytest.raises(BadRequest, match=r"points\.1\.x: "):
        parse_record(Line, {"points": [{"x": 1}, {"x": None}]})


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(BadRequest) as refused:
        parse_record(Point, {"x": "y" * 10_000})
    assert len(refused.value.message) < 300


def test_order_and_spelling_of_a_value_do_not_change_its_digest() -> None:
    assert digest_json({"a": 1, "b": [2]}) == digest_json({"b": [2], "a": 1})
    assert digest_json([1, 2]) != digest_json([2, 1])
    assert digest_json("é") == digest_json("\u00e9")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": [float("-inf")]}])
def test_what_is_no_json_has_no_digest(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest_json(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=json_values)
def test_a_canonical_text_is_plain_ascii_without_spaces_around(value: object) -> None:
    text = canonical_json(value)
    assert text.isascii()
    assert text == canonical_json(value)
    assert len(digest_json(value)) == 32


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        "a\ud800",
        {"\udfff": 1},
        [{"x": {"y": -float("inf")}}],
        {1, 2},
        b"",
    ],
)
def test_what_only_python_takes_for_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_json(value)


@pytest.mark.parametrize("value", [None, {}, [1, 2.5, "\U0001f600", "\0", True], 10**400])
def test_json_is_json(value: object) -> None:
    check_json(value)
