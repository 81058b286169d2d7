"""Which residents must go so that bytes become free on a device."""

from collections.abc import Iterable, Mapping

from warmrack_store.eviction import gdsf, lru
from warmrack_store.eviction.views import Candidate, Policy, ResidentView

__all__ = ["DEFAULT_POLICY", "POLICIES", "Candidate", "Policy", "ResidentView", "plan_victims"]

POLICIES: Mapping[str, Policy] = {
    "gdsf": gdsf.score,
    "lru": lru.score,
}
DEFAULT_POLICY = "gdsf"


def plan_victims(
    policy: str, needed_bytes: int, residents: Iterable[ResidentView], now: float
) -> tuple[ResidentView, ...] | None:
    """Victims on one device that free `needed_bytes`, the first to go first; None if none can.

    `needed_bytes` is what is missing beyond what is free already; `residents` are all of one
    device. Pinned, leased or busy residents are never victims, nor is one that the others make
    needless.
    """
    if needed_bytes <= 0:
        return ()
    losses = {
        resident: POLICIES[policy](resident, now)
        for resident in residents
        if resident.is_evictable(now) and resident.size_bytes > 0
    }
    chosen: list[ResidentView] = []
    freed_bytes = 0
    for resident in sorted(losses, key=lambda resident: (losses[resident], resident.id)):
        if freed_bytes >= needed_bytes:
            break
        chosen.append(resident)
        freed_bytes += resident.size_bytes
    if freed_bytes < needed_bytes:
        return None
    return tuple(_drop_needless(chosen, freed_bytes - needed_bytes))


def _drop_needless(chosen: list[ResidentView], spare_bytes: int) -> list[ResidentView]:
    """Keep what is worth most, as long as the rest still frees enough."""
    kept: list[ResidentView] = []
    for resident in reversed(chosen):
        if resident.size_bytes <= spare_bytes:
            spare_bytes -= resident.size_bytes
        else:
            kept.append(resident)
    return kept[::-1]
