"""The files of a receipt that has left the pool, checked on this machine without any service."""

import hashlib
from pathlib import Path

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.errors import BadRequest, Integrity
from warmrack_store.receipts import Receipt, ServedFile
from warmrack_store.refs import check_file_path


def check_folder(receipt: Receipt, folder: Path) -> None:
    """Raises Integrity unless every file of the receipt lies there with its digest, BadRequest
    where there is no such folder. Further files in it are none of the receipt's business."""
    if not folder.is_dir():
        raise BadRequest(f"{folder} is not a folder")
    wrong = [text for file in receipt.files if (text := _compare(folder, file))]
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise Integrity(
            f"{folder}: {'; '.join(wrong[:3])}{rest}",
            hint="These are not the files that the receipt is about; fetch them again.",
        )


def find_snapshot(receipt: Receipt, cache_dir: Path) -> Path:
    """Where the ordinary cache layout has what the receipt is about."""
    served = receipt.served
    layout = RepositoryLayout(cache_dir=cache_dir, repository=served.repository)
    return layout.snapshot(served.commit)


def _compare(folder: Path, file: ServedFile) -> str | None:
    try:
        with (folder / check_file_path(file.path)).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"{file.path} cannot be read: {error.strerror}"
    if found != file.sha256:
        return f"{file.path} has digest {found}, receipt says {file.sha256}"
    return None
