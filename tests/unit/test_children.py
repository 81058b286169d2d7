"""The children of `up`: which deaths are final, and what is told of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from warmrack_daemon.children import Child, last_words
from warmrack_store.errors import BadRequest, Refusal


def ended(tmp_path: Path, code: int, said: str = "") -> Child:
    """A child that has said something on stderr and exited."""
    program = f"import sys; sys.stderr.write({said!r}); sys.exit({code})"
    child = Child(
        name="node-0",
        role="node",
        command=[sys.executable, "-c", program],
        environment={},
        log_path=tmp_path / "logs" / "node-0.log",
    )
    child.start()
    assert child.process is not None
    child.process.wait(timeout=30)
    return child


@pytest.mark.parametrize(("code", "kind"), [(2, BadRequest), (3, Refusal)])
def test_a_child_that_refuses_its_settings_is_final(
    tmp_path: Path, code: int, kind: type[Refusal]
) -> None:
    line = '{"error": {"code": "x", "message": "device \'tpu\' is not known", "hint": "Write cpu"}}'
    refusal = ended(tmp_path, code, f"starts\n{line}\n").find_refusal()
    assert type(refusal) is kind
    assert refusal.message == "node-0 cannot start: device 'tpu' is not known. Write cpu"
    assert str(tmp_path / "logs" / "node-0.log") in refusal.hint


@pytest.mark.parametrize("code", [0, 1, 4, 120])
def test_a_child_that_dies_otherwise_is_started_again_and_its_log_is_named(
    tmp_path: Path, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    child = ended(tmp_path, code, "first\nOSError: why\n")
    assert child.find_refusal() is None
    child.revive()
    said = capsys.readouterr().err
    assert str(child.log_path) in said
    assert ("OSError: why" in said) == (code > 0)
    assert child.restart_at is not None


def test_a_stderr_without_room_does_not_end_who_revives(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from warmrack_daemon.children import Child\n"
        "child = Child(name='n', role='node', command=['/bin/false'], environment={},"
        f" log_path=Path({str(tmp_path / 'logs' / 'n.log')!r}))\n"
        "child.start(); child.process.wait(); child.revive(); print('goes on')"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.stdout == "goes on\n"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "it said nothing"),
        ("a\nb\n\n", "b"),
        ("error[bad-request]: no\nhint: do\n", "error[bad-request]: no hint: do"),
        ('{"error": 7}', '{"error": 7}'),
        ("[1]", "[1]"),
    ],
)
def test_the_last_words_are_one_line(tmp_path: Path, log: str, words: str) -> None:
    (tmp_path / "log").write_text(log)
    assert last_words(tmp_path / "log") == words


def test_a_log_that_is_not_there_has_no_words(tmp_path: Path) -> None:
    assert "cannot be read" in last_words(tmp_path / "log")
