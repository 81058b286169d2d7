"""Who a cache folder is, whichever node and path it is seen from."""

import os
import uuid
from pathlib import Path

_NAME = ".warmrack-store"


def store_identity(cache_dir: Path) -> str:
    """The id kept inside the cache, made on first use; the same for two nodes on one shared folder.

    It lies under `.locks`, the one folder that stock scans of a cache skip. Made with a hard link,
    which is atomic on NFS too, where file locks may not be.
    """
    target = cache_dir / ".locks" / _NAME
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _offer(target, uuid.uuid4().hex)
    return str(uuid.UUID(target.read_text(encoding="ascii").strip()))


def _offer(target: Path, identity: str) -> None:
    """Put `identity` there, unless another process was first."""
    staged = target.with_name(f"{_NAME}.{identity}")
    with staged.open("w", encoding="ascii") as stream:
        stream.write(f"{identity}\n")
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(staged, target)
    except FileExistsError:
        return
    finally:
        staged.unlink()
