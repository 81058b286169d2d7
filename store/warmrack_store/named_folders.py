"""The folders that settings name, made where they are missing."""

import os
from pathlib import Path

from warmrack_store.errors import BadRequest


def make_named_folder(folder: Path, setting: str, *, mode: int = 0o777) -> None:
    """Make the folder; BadRequest names the setting where it cannot be one that we write."""
    hint = f"Set WARMRACK_{setting.upper()} to a folder that this user may write."
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadRequest(
            f"{setting}: {str(folder)!r} cannot be a folder: {why}", hint=hint
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadRequest(f"{setting}: {folder} cannot be written", hint=hint)
