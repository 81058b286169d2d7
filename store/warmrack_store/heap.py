"""The C heap of a process that mostly waits: few arenas, and free pages given back."""

import ctypes

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""
_ARENAS = 2
"""glibc makes eight for each core, one per busy thread; each keeps what its thread once needed.
Two cost waiting threads nothing and save some 9 MB of control plane and agent together."""
GIVE_BACK_SECONDS = 10.0
"""How often a process of ours does; it takes about a millisecond."""


def limit_arenas() -> None:
    """Call it before threads start. Does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return free pages to the system: some 6 MB after the imports, more after a fetch."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
