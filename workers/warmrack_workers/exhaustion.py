"""Memory that ran out, told apart from other failures, whichever library noticed it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from warmrack_store.errors import OutOfMemory

_SAID = ("Cannot allocate memory", "can't allocate memory", "std::bad_alloc")
"""On the CPU torch raises a RuntimeError with one of these: c10's allocator, its mmap, C++."""


def ran_out(error: BaseException) -> bool:
    """Whether the error says that there was no more memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(one in str(error) for one in _SAID)


@contextmanager
def out_of_memory_as_refusal(what: str) -> Iterator[None]:
    """Within, memory that runs out raises OutOfMemory; `what` begins its message."""
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(f"{what}: {error or type(error).__name__}") from error
