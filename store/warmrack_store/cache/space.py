"""How much room the cache's disk has, and the error when it has none."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from warmrack_store.errors import DiskFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def check_space(cache_dir: Path, need_bytes: int) -> None:
    """Raise DiskFull where so many bytes do not fit; the cache's folder need not exist yet."""
    place = next(place for place in (cache_dir, *cache_dir.parents) if place.exists())
    have_bytes = shutil.disk_usage(place).free
    if need_bytes > have_bytes:
        raise DiskFull(
            f"{need_bytes} bytes are needed in {cache_dir}, {have_bytes} are free: "
            "nothing was downloaded"
        )


@contextmanager
def disk_full_as_refusal(cache_dir: Path) -> Iterator[None]:
    """Within, a disk or quota that runs full raises DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        have_bytes = shutil.disk_usage(cache_dir).free
        raise DiskFull(
            f"the disk of {cache_dir} ran full in the middle of the download "
            f"({have_bytes} bytes are free): {error.strerror}",
            hint="Free space on the node and ask again: what has arrived is kept.",
        ) from error
