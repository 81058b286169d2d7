"""Wrong files moved out of the way, kept for inspection."""

import os
from pathlib import Path

from warmrack_store.cache.layout import RepositoryLayout


def quarantine(layout: RepositoryLayout, location: Path) -> Path:
    """Rename `location` (a link itself, not what it points to) into the work folder; where it is.

    A process that has the file open or mapped keeps its bytes.
    """
    aside = layout.work / f"{location.name}.{os.urandom(4).hex()}.bad"
    location.rename(aside)
    return aside
