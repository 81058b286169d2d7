"""How a file is cut."""

from hypothesis import given
from hypothesis import strategies as st

from warmrack_store.pieces import (
    LARGEST_PIECE_BYTES,
    SMALLEST_PIECE_BYTES,
    list_pieces,
    piece_bytes,
)

GIB = 2**30


def test_small_files_have_pieces_of_4_mib_and_huge_ones_of_64() -> None:
    sizes = {0: 4, 1: 4, GIB: 4, 8 * GIB: 4, 8 * GIB + 1: 8, 64 * GIB: 32, 500 * GIB: 64}
    assert {size: piece_bytes(size) >> 20 for size in sizes} == sizes


def test_an_empty_file_has_no_piece() -> None:
    assert list_pieces(0) == ()


@given(size_bytes=st.integers(1, 2 * 2**40))
def test_pieces_are_a_power_of_two_and_few_until_they_are_as_long_as_allowed(
    size_bytes: int,
) -> None:
    length = piece_bytes(size_bytes)
    assert SMALLEST_PIECE_BYTES <= length <= LARGEST_PIECE_BYTES
    assert length.bit_count() == 1
    assert length == LARGEST_PIECE_BYTES or -(-size_bytes // length) <= 2_048


@given(size_bytes=st.integers(0, 500), length=st.integers(1, 64))
def test_pieces_cover_every_byte_once_in_order(size_bytes: int, length: int) -> None:
    pieces = list_pieces(size_bytes, length)
    covered = [byte for piece in pieces for byte in range(piece.start, piece.end)]
    assert covered == list(range(size_bytes))
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    assert all(0 < piece.size_bytes <= length for piece in pieces)
