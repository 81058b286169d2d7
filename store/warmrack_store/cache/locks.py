"""huggingface_hub's own lock on a blob, so that a stock client waits instead of downloading twice."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event

from filelock import Timeout as LockTimeout
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # no __all__ there

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.errors import Cancelled

_LOOK_UP_SECONDS = 0.25
"""How often a waiting thread looks whether it should still wait."""


@contextmanager
def blob_lock(layout: RepositoryLayout, digest: str, halt: Event) -> Iterator[None]:
    """Hold the lock; Cancelled where `halt` is set before it is free.

    Not a claim: on NFS or Lustre it may exclude nobody. It only spares stock clients work.
    """
    with ExitStack() as held:
        while not halt.is_set():
            try:
                held.enter_context(WeakFileLock(layout.lock(digest), timeout=_LOOK_UP_SECONDS))
            except LockTimeout:
                continue
            yield
            return
        raise Cancelled(f"stopped while waiting for another process to finish blob {digest}")
