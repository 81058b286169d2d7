"""The policy that evicts what was used longest ago."""

from warmrack_store.eviction.views import Candidate


def score(candidate: Candidate, now: float) -> float:
    """Seconds since its last use, as a loss: the longer ago, the less is lost."""
    return candidate.last_used_at - now
