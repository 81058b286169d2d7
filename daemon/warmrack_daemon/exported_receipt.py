"""The files of a receipt that has left the pool, checked on this machine without any service."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.errors import BadRequest, Integrity
from warmrack_store.receipts import Receipt, ServedFile
from warmrack_store.refs import check_file_path


def check_folders(receipt: Receipt, folders: Sequence[Path]) -> None:
    """Raises Integrity unless every file of the receipt lies in one of them with its digest,
    BadRequest where one is no folder. Further files there are none of the receipt's business."""
    for folder in folders:
        if not folder.is_dir():
            raise BadRequest(f"{folder} is not a folder")
    wrong = [text for file in receipt.files if (text := _compare(folders, file))]
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise Integrity(
            f"{' and '.join(map(str, folders))}: {'; '.join(wrong[:3])}{rest}",
            hint="These are not the files that the receipt is about; fetch them again.",
        )


def list_snapshots(receipt: Receipt, cache_dir: Path) -> tuple[Path, ...]:
    """Where the ordinary cache layout has what the receipt is about: the model, then its adapter."""
    served = receipt.served
    parts = (served,) if served.adapter is None else (served, served.adapter)
    return tuple(
        RepositoryLayout(cache_dir=cache_dir, repository=part.repository).snapshot(part.commit)
        for part in parts
    )


def _compare(folders: Sequence[Path], file: ServedFile) -> str | None:
    """In the first folder that has a file of this name; a model and its adapter share none."""
    places = [folder / check_file_path(file.path) for folder in folders]
    place = next((one for one in places if one.exists()), places[0])
    try:
        with place.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"{file.path} cannot be read: {error.strerror}"
    if found != file.sha256:
        return f"{file.path} has digest {found}, receipt says {file.sha256}"
    return None
