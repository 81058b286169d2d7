"""Files of a user that several commands may change at once: one at a time, whole or not at all."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from warmrack_store.errors import BadRequest

_HINTS = {
    errno.ENOSPC: "Free space there, or name another file: --lock-file FILE.",
    errno.EDQUOT: "Free space there, or name another file: --lock-file FILE.",
    errno.ENOENT: "Make its folder first.",
}
_HINT = "Name a file in a folder that this user may write: --lock-file FILE."


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Nobody else changes the file within the block; another who wants to waits.

    A file beside it is locked, since the file itself is replaced; who ends removes it, and a
    process that dies lets go. Raises BadRequest where no file can be written there.
    """
    target = _follow(path)
    beside = target.with_name(f".{target.name}.changing")
    try:
        held = _hold(beside)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield
    finally:
        beside.unlink(missing_ok=True)
        os.close(held)


def replace_file(path: Path, text: str) -> None:
    """Put the text in the file's place; where that is a link, in place of the file it leads to.

    Raises BadRequest where that cannot be done; the file is then as it was.
    """
    target = _follow(path)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
            written = Path(folder) / target.name
            with written.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            written.replace(target)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _hold(beside: Path) -> int:
    """A locked descriptor of the file; who has waited for one that is gone takes the new one."""
    while True:
        held = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            if _is_same(held, beside):
                return held
        except BaseException:
            os.close(held)
            raise
        os.close(held)


def _is_same(held: int, beside: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), beside.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _follow(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _cannot_write(path: Path, error: OSError) -> BadRequest:
    hint = _HINTS.get(error.errno or 0, _HINT)
    return BadRequest(f"{path} cannot be written: {error.strerror}", hint=hint)
