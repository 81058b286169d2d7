"""The source of a fetch that may ask nobody: what is not in the cache is missing."""

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Never, Self

from warmrack_store.errors import OfflineMiss
from warmrack_store.facts import FileFact


class OfflineSource:
    """Raises OfflineMiss for each file that the cache cannot give."""

    name = "none"
    is_peer = False
    ranged = True
    received_bytes = 0

    def __init__(self, *, repository: str, commit: str) -> None:
        self._snapshot = f"{repository}@{commit}"

    def open(self, file: FileFact, start: int, end: int) -> AbstractContextManager[Never]:
        raise OfflineMiss(f"{file.path} of {self._snapshot} is not whole in this node's cache")

    def interrupt(self) -> None:
        """Nothing is under way."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is open."""
