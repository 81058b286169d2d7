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
    return b"".join(stream.feed(chunk) for chunk in chunks)


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


def test_event_that_breaks_off_is_not_passed_on() -> None:
    token = b'event: token\ndata: {"text":"a"}\n\n'
    assert pass_through([token + b'event: done\ndata: {"text":']) == token
    assert pass_through([token, b"event: do"]) == token


@given(st.lists(st.integers(0, len(STREAM)), max_size=8), st.sampled_from([None, "rec_1"]))
def test_stream_has_ended_with_its_whole_last_event(cuts: list[int], receipt: str | None) -> None:
    stream = NamedStream(receipt)
    for start, end in pairwise([0, *sorted(cuts), len(STREAM)]):
        stream.feed(STREAM[start:end])
        assert stream.ended == (end == len(STREAM))


def test_error_ends_a_stream_and_a_long_result_does() -> None:
    for last in (b'event: error\ndata: {"code":"x"}\n\n', STREAM[:-4] + b"x" * 9_000 + b'"}\n\n'):
        stream = NamedStream("rec_1")
        for start in range(0, len(last), 1_000):
            stream.feed(last[start : start + 1_000])
        assert stream.ended


def test_result_names_its_receipt_first() -> None:
    assert json.loads(name_result(b'{"text":"x"}', "rec_1")) == {"receipt": "rec_1", "text": "x"}
    for other in (b"", b"{}", b"[1]", b"text"):
        assert name_result(other, "rec_1") == other
    assert name_result(b'{"text":"x"}', None) == b'{"text":"x"}'
