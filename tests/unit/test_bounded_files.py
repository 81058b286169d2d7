"""Files that a user names: only regular ones, and only as long as they may be."""

import os
from pathlib import Path

import pytest

from tests.unit.command_line import Warmrack
from warmrack.bounded_files import read_bytes, read_text
from warmrack_store.errors import BadRequest


def test_a_file_is_read_up_to_its_limit_and_not_beyond(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, max_bytes=5) == b"12345"
    with pytest.raises(BadRequest, match=r"file cannot be read: it is longer than 4 bytes"):
        read_bytes(path, max_bytes=4)


def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(BadRequest, match="pipe cannot be read: it is not a regular file"):
        read_bytes(pipe)


def test_a_file_that_is_missing_or_no_text_is_named_with_the_hint(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="none cannot be read: No such file") as caught:
        read_text(tmp_path / "none", hint="Make it.")
    assert caught.value.hint == "Make it."
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(BadRequest, match="not UTF-8"):
        read_text(tmp_path / "file")


@pytest.mark.parametrize(
    "command",
    [
        ("load", "org/name", "--locked", "--lock-file"),
        ("lock", "org/name", "--lock-file"),
        ("lock", "diff", "--lock-file"),
        ("receipt", "--verify"),
        ("explain", "--names-only", "--batch"),
        ("catalog", "show", "--catalog"),
    ],
)
def test_no_command_reads_from_a_device_that_never_ends(
    warmrack: Warmrack, command: tuple[str, ...]
) -> None:
    # One without bytes stands for /dev/full: it would be read to its end, with any memory.
    error = warmrack(*command, "/dev/null", "--json").json["error"]
    assert error["code"] == "bad-request"
    assert error["message"] == "/dev/null cannot be read: it is not a regular file"
