"""Files that several commands change: one at a time, whole or not at all."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from warmrack.file_changes import changing, replace_file
from warmrack_store.errors import BadRequest


@contextmanager
def longest_file(size_bytes: int) -> Iterator[None]:
    """No file of this process grows longer, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_leaves_the_file_as_it_was_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    replace_file(path, "before")
    with longest_file(3), pytest.raises(BadRequest, match=r"models.lock cannot be written: File"):
        replace_file(path, "afterwards")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "shared" / "models.lock", tmp_path / "models.lock"
    target.parent.mkdir()
    link.symlink_to(Path("shared") / "models.lock")
    for text in ("made", "changed"):
        replace_file(link, text)
        assert (link.is_symlink(), target.read_text()) == (True, text)


def test_the_place_and_the_way_out_are_named_where_nothing_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "none" / "models.lock"
    with pytest.raises(BadRequest, match=r"none/models.lock cannot be written: No such") as caught:
        replace_file(path, "text")
    assert "folder" in caught.value.hint
    with pytest.raises(BadRequest, match="cannot be written"), changing(path):
        pytest.fail("nothing is held")
    with pytest.raises(BadRequest, match="Is a directory"):
        replace_file(tmp_path, "text")


def test_who_changes_a_file_is_waited_for_even_by_another_name(tmp_path: Path) -> None:
    path, link = tmp_path / "models.lock", tmp_path / "link"
    link.symlink_to(path)
    order: list[str] = []
    opened = threading.Event()

    def change() -> None:
        opened.set()
        with changing(link):
            order.append("second")

    waiting = threading.Thread(target=change)
    with changing(path):
        waiting.start()
        assert opened.wait(10)
        waiting.join(0.2)
        assert waiting.is_alive()
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    assert os.listdir(tmp_path) == ["link"]


def test_a_lock_left_by_a_process_that_died_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    (tmp_path / ".models.lock.changing").touch()
    with changing(path):
        replace_file(path, "text")
    assert list(tmp_path.iterdir()) == [path]
