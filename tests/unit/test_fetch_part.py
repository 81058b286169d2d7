"""A file as it arrives: its journal, its stretches, and what a crash leaves."""

import hashlib
import os
from pathlib import Path
from threading import Condition, Event

import pytest
from blake3 import blake3

from warmrack_store.errors import Integrity
from warmrack_store.facts import FileFact
from warmrack_store.pieces import list_pieces
from warmrack_workers.fetch.filling import MARK_BYTES, Filling
from warmrack_workers.fetch.journal import Journal, Mark
from warmrack_workers.fetch.line import Line
from warmrack_workers.fetch.part import Part, PieceState, Stretch
from warmrack_workers.fetch.tally import Tally

GIB = 2**30
DIGEST = "d" * 64


def open_part(folder: Path, size_bytes: int, piece_bytes: int | None = None) -> Part:
    pieces = list_pieces(size_bytes, piece_bytes)
    file = FileFact(path="model.bin", size=size_bytes, git_sha1="a" * 40, sha256=DIGEST)
    journal = Journal(folder / "model.pieces", pieces)
    return Part(file, folder / "model.part", journal, pieces, Condition())


def fill(part: Part, stretch: Stretch, data: bytes, tally: Tally | None = None) -> Filling:
    filling = Filling(part, stretch, "hub", tally or Tally(part.file.size), None)
    filling.take(data)
    return filling


def claim(part: Part, most_bytes: int = 0) -> Stretch:
    stretch = part.claim(most_bytes)
    assert stretch is not None
    return stretch


def test_stretches_ascend_and_never_overlap_and_what_is_given_back_comes_first(
    tmp_path: Path,
) -> None:
    part = open_part(tmp_path, 100, 10)
    first, second = claim(part, 30), claim(part, 30)
    assert (first.start, first.end, second.start, second.end) == (0, 30, 30, 60)
    part.release(first)
    again = claim(part)
    assert (again.start, again.end) == (0, 10)
    assert claim(part, 1000).end == 30, "the pieces behind are another connection's"
    part.release(second)


def test_a_server_without_ranges_gets_one_connection_for_all_that_is_left(tmp_path: Path) -> None:
    part = open_part(tmp_path, 100, 10)
    first = claim(part)
    assert part.claim(0, to_the_end=True) is None
    fill(part, first, bytes(10))
    part.release(first)
    rest = part.claim(0, to_the_end=True)
    assert rest is not None
    assert (rest.start, rest.end) == (10, 100)
    assert part.claim(0, to_the_end=True) is None


def test_what_was_noted_is_there_after_a_crash_and_the_rest_is_wanted(tmp_path: Path) -> None:
    part = open_part(tmp_path, 30, 10)
    part.allocate()
    fill(part, claim(part, 30), b"x" * 14).note()
    after = open_part(tmp_path, 30, 10)  # nobody closed the first one
    assert after.state(0) is PieceState.KEPT
    assert after.kept_bytes == 14
    rest = claim(after)
    assert (rest.start, rest.end) == (14, 20)
    fill(after, rest, b"y" * 6)
    assert after.arrived[1].blake3 == blake3(b"x" * 4 + b"y" * 6).hexdigest()


def test_a_kept_beginning_that_changed_is_asked_for_again(tmp_path: Path) -> None:
    part = open_part(tmp_path, 30, 10)
    part.allocate()
    fill(part, claim(part), b"x" * 4).note()
    part.write(memoryview(b"z"), 2)
    after = open_part(tmp_path, 30, 10)
    tally = Tally(30)
    tally.add_resumed(after.kept_bytes)
    filling = Filling(after, claim(after), "hub", tally, None)
    assert filling.position == 0
    assert tally.resumed_bytes == 0


def test_a_kill_costs_a_mark_and_a_chunk_at_most_whatever_the_chunks(tmp_path: Path) -> None:
    part = open_part(tmp_path, 8 * MARK_BYTES)
    part.allocate()
    filling = Filling(part, claim(part), "hub", Tally(part.file.size), None)
    for chunk_bytes in (100_001, 1, 300_000, 50_000, 700_003, MARK_BYTES - 1):
        filling.take(bytes(chunk_bytes))
        after = open_part(tmp_path, part.file.size)
        assert filling.position - after.kept_bytes < MARK_BYTES
        after.close()


def test_a_line_that_a_crash_cut_short_does_not_count_and_spoils_no_later_one(
    tmp_path: Path,
) -> None:
    pieces = list_pieces(30, 10)
    mark = Mark(index=0, size_bytes=10, blake3="a" * 64)
    first = Journal(tmp_path / "j", pieces)
    first.add(mark)
    first.close()
    with (tmp_path / "j").open("a") as stream:
        stream.write("1 10 abc")
    second = Journal(tmp_path / "j", pieces)
    assert second.read() == {0: mark}
    later = Mark(index=2, size_bytes=3, blake3="b" * 64)
    second.add(later)
    assert second.read() == {0: mark, 2: later}
    second.close()


def test_a_journal_of_a_file_cut_otherwise_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", list_pieces(30, 10))
    journal.add(Mark(index=0, size_bytes=10, blake3="a" * 64))
    journal.close()
    assert Journal(tmp_path / "j", list_pieces(30, 15)).read() == {}
    assert not (tmp_path / "j").exists()


def test_more_bytes_than_were_asked_for_are_refused(tmp_path: Path) -> None:
    part = open_part(tmp_path, 30, 10)
    with pytest.raises(Integrity, match="sends more"):
        fill(part, claim(part), bytes(11))


def test_a_piece_that_is_not_the_expected_one_names_the_source_and_is_wanted_again(
    tmp_path: Path,
) -> None:
    part = open_part(tmp_path, 30, 10)
    stretch = claim(part, 30)
    expected = {0: blake3(bytes(10)).hexdigest(), 1: "f" * 64}
    tally = Tally(30)
    filling = Filling(part, stretch, "node-7", tally, lambda _digest, index: expected.get(index))
    with pytest.raises(Integrity, match="node-7"):
        filling.take(bytes(30))
    filling.note()
    part.release(stretch)
    assert part.kept_bytes == 0
    assert [part.state(index) for index in range(3)] == [
        PieceState.HERE,
        PieceState.WANTED,
        PieceState.WANTED,
    ]
    assert tally.received_bytes == 10


def test_a_file_above_50_gb_is_cut_filled_and_resumed_at_its_end(tmp_path: Path) -> None:
    """Sparse: neither its size nor its places pass through anything that stops at 4 or 50 GB."""
    size_bytes = 60 * GIB + 12_345
    *before, last = list_pieces(size_bytes)
    assert last.index < 2_048
    journal = Journal(tmp_path / "model.pieces", (*before, last))
    for piece in before:
        journal.add(Mark(index=piece.index, size_bytes=piece.size_bytes, blake3="a" * 64))
    journal.close()
    (tmp_path / "model.part").touch()
    os.truncate(tmp_path / "model.part", size_bytes)
    part = open_part(tmp_path, size_bytes)
    fill(part, claim(part), b"e" * 12_000).note()
    after = open_part(tmp_path, size_bytes)
    assert after.kept_bytes == last.start + 12_000
    found = hashlib.sha256()
    after.read(last.start, last.start + 12_000, found.update)
    assert found.digest() == hashlib.sha256(b"e" * 12_000).digest()
    assert (tmp_path / "model.part").stat().st_blocks * 512 < 2**20


def test_a_lower_rank_waits_while_a_higher_one_fetches() -> None:
    line = Line()
    with line.entered(1):
        assert not line.must_yield(1)
        with line.entered(2):
            assert line.must_yield(1)
            assert not line.must_yield(2)
        assert not line.must_yield(1)


def test_a_halted_fetch_does_not_wait_for_the_rate() -> None:
    line, halt = Line(rate=1.0), Event()
    halt.set()
    line.pass_bytes(10**9, halt)
