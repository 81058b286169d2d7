"""Server-sent events, however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmrack.sse import Message, Parser
from warmrack_store.errors import Defect

TEXT = (
    "id: 1\nevent: token\ndata: {}\n\n"
    ": a comment\n\n"
    "event: token\r\ndata: é\u2028\r\ndata:two\r\n\r\n"
    "id\nunknown: x\ndata: last\n\n"
    "event: half"
)
MESSAGES = [
    Message(type="token", data="{}", id="1"),
    Message(type="token", data="é\u2028\ntwo", id="1"),
    Message(type="message", data="last", id=""),
]


@given(st.lists(st.integers(0, len(TEXT.encode()))))
def test_the_same_events_come_out_however_the_bytes_are_cut(cuts: list[int]) -> None:
    data = TEXT.encode()
    edges = [0, *sorted(cuts), len(data)]
    parser = Parser()
    pieces = (data[a:b] for a, b in pairwise(edges))
    assert [message for piece in pieces for message in parser.feed(piece)] == MESSAGES


def test_lines_that_end_with_a_lone_carriage_return_are_lines() -> None:
    assert [one.data for one in Parser().feed(b"data: a\r\rdata: b\r\r\n")] == ["a", "b"]


@pytest.mark.parametrize("data", ["not json", "[1]", "7"])
def test_data_that_is_no_json_object_is_a_defect(data: str) -> None:
    with pytest.raises(Defect):
        Message(type="token", data=data, id=None).read_object()
