"""The policy that evicts what costs least to bring back, for each byte and second that it is idle."""

from warmrack_store.eviction.views import Candidate

_LEAST_SECONDS = 0.01
"""Below this neither a reload nor an idle time tells anything."""


def score(candidate: Candidate, now: float) -> float:
    """Uses x reload seconds / bytes, over the seconds since the last use.

    Greedy-Dual-Size-Frequency (Cherkasova 1998) ages by a clock that grows with each victim; here
    the idle time divides instead (hyperbolic caching, Blankstein 2017), which needs no state, so
    that the same facts give the same victim on every node and after every restart.
    """
    idle_seconds = max(now - candidate.last_used_at, _LEAST_SECONDS)
    reload_seconds = max(candidate.load_seconds, _LEAST_SECONDS)
    return candidate.uses * reload_seconds / max(candidate.size_bytes, 1) / idle_seconds
