"""Answers that name their receipt, however the bytes were cut on their way."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from warmrack_daemon.api.named_answers import NamedStream, name_result

STREAM = (
    b'event: token\ndata: {"text":"event: done\\ndata: {"}\n\n'
    b'event: done\ndata: {"text":"x","usage":{}}\n\n'
)


def pass_through(chunks: list[bytes], receipt_id: str | None = "rec_1") -> bytes:
    stream = NamedStream(receipt_id)
    return b"".join(stream.feed(chunk) for chunk in chunks) + stream.rest()


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_final_event_names_the_receipt_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in pairwise(ends)]
    first, last = pass_through(chunks).decode().strip().split("\n\n")
    assert f"{first}\n\n".encode() == STREAM[: STREAM.index(b"event: done\ndata: {", 40)]
    assert json.loads(last.partition("data: ")[2]) == {
        "receipt": "rec_1",
        "text": "x",
        "usage": {},
    }


def test_token_is_passed_on_at_once() -> None:
    token = b'event: token\ndata: {"text":"a"}\n\n'
    assert NamedStream("rec_1").feed(token) == token


def test_stream_that_breaks_off_keeps_its_bytes() -> None:
    assert pass_through([STREAM[:-30]]) == STREAM[:-30].replace(
        b'event: done\ndata: {"', b'event: done\ndata: {"receipt":"rec_1","'
    )
    assert pass_through([b"event: do"]) == b"event: do"


def test_result_names_its_receipt_first() -> None:
    assert json.loads(name_result(b'{"text":"x"}', "rec_1")) == {"receipt": "rec_1", "text": "x"}
    for other in (b"", b"{}", b"[1]", b"text"):
        assert name_result(other, "rec_1") == other
    assert name_result(b'{"text":"x"}', None) == b'{"text":"x"}'
