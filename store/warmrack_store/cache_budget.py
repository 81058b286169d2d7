"""What must go from a store's disk so that something else has room there. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from warmrack_store.durations import format_size
from warmrack_store.errors import DiskFull
from warmrack_store.eviction import POLICIES

OUTSIDE = "outside"
"""The user of bytes that have a name outside of the cache."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotView:
    """One snapshot that warmrack fetched or adopted; a candidate of the eviction policies."""

    repository: str
    commit: str
    size_bytes: int
    last_used_at: float
    load_seconds: float
    """What bringing it back is expected to take."""
    uses: int = 1
    holds: tuple[str, ...] = ()
    """Who needs it, in words; it stays while there is anybody."""

    @property
    def key(self) -> str:
        return snapshot_key(self.repository, self.commit)


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesView:
    """One physical file, and the keys of the snapshots that use it, ours or not.

    Links share a blob between revisions, hard links between repositories: it counts once, and
    goes with its last user.
    """

    size_bytes: int
    users: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    snapshot: SnapshotView
    freed_bytes: int
    """With it and those before it gone; bytes that others use are not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionPlan:
    """What goes, the first to go first. `kept` is what the bytes needed could not be taken from."""

    needed_bytes: int
    victims: tuple[Victim, ...] = ()
    kept: tuple[SnapshotView, ...] = ()

    @property
    def freed_bytes(self) -> int:
        return sum(victim.freed_bytes for victim in self.victims)

    @property
    def reached(self) -> bool:
        return self.freed_bytes >= self.needed_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the store may hold; without a quota nothing is ever evicted by itself."""

    quota_bytes: int | None
    high_share: float
    low_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskView:
    """How full a store is. Promised is what fetches under way have reserved and not yet written."""

    used_bytes: int
    free_bytes: int
    """Of the file system."""
    total_bytes: int
    promised_bytes: int = 0
    """What their blobs will hold of the quota."""
    promised_disk_bytes: int = 0
    """What they will still take of the file system: parts may hold their room already."""


def snapshot_key(repository: str, commit: str) -> str:
    return f"{repository}@{commit}"


def plan_evictions(
    needed_bytes: int,
    snapshots: Iterable[SnapshotView],
    files: Sequence[BytesView],
    policy: str,
    now: float,
) -> EvictionPlan:
    """The victims that free `needed_bytes`, or all that can be freed where that is less.

    Nothing that somebody holds is among them, nor a snapshot without which enough is freed too.
    """
    candidates = list(snapshots)
    open_ones = [one for one in candidates if not one.holds]
    kept = tuple(one for one in candidates if one.holds)
    if needed_bytes <= 0:
        return EvictionPlan(needed_bytes=0, kept=kept)
    score = POLICIES[policy]
    chosen: list[SnapshotView] = []
    for one in sorted(open_ones, key=lambda one: (score(one, now), one.key)):
        if count_freed(files, {other.key for other in chosen}) >= needed_bytes:
            break
        chosen.append(one)
    chosen = _drop_needless(chosen, files, needed_bytes)
    return EvictionPlan(needed_bytes=needed_bytes, victims=tell_freed(chosen, files), kept=kept)


def count_freed(files: Iterable[BytesView], gone: Collection[str]) -> int:
    """Bytes that nobody uses once these snapshots are gone."""
    left = frozenset(gone)
    return sum(file.size_bytes for file in files if file.users and file.users <= left)


def tell_freed(chosen: Iterable[SnapshotView], files: Sequence[BytesView]) -> tuple[Victim, ...]:
    """Each with what its going frees after the ones before it."""
    victims: list[Victim] = []
    gone: set[str] = set()
    before = 0
    for one in chosen:
        gone.add(one.key)
        after = count_freed(files, gone)
        victims.append(Victim(snapshot=one, freed_bytes=after - before))
        before = after
    return tuple(victims)


def _drop_needless(
    chosen: list[SnapshotView], files: Sequence[BytesView], needed_bytes: int
) -> list[SnapshotView]:
    """Keep what is worth most, as long as the rest still frees as much as it must."""
    goal = min(needed_bytes, count_freed(files, {one.key for one in chosen}))
    for one in reversed(tuple(chosen)):
        rest = [other for other in chosen if other is not one]
        if count_freed(files, {other.key for other in rest}) >= goal:
            chosen = rest
    return chosen


def plan_room(
    need_bytes: int,
    need_disk_bytes: int,
    disk: DiskView,
    limits: Limits,
    snapshots: Sequence[SnapshotView],
    files: Sequence[BytesView],
    *,
    policy: str,
    now: float,
    node: str,
) -> EvictionPlan:
    """What goes before so many more bytes come.

    Over the high watermark of a quota it goes down to the low one, as far as that is possible.
    Raises DiskFull where the quota itself, or the disk, has no room for them even so.
    """
    disk_short = need_disk_bytes + disk.promised_disk_bytes - disk.free_bytes
    if limits.quota_bytes is None:
        if disk_short > 0:
            have = max(0, disk.free_bytes - disk.promised_disk_bytes)
            raise _full(node, need_disk_bytes, have, "its disk", snapshots)
        return EvictionPlan(needed_bytes=0)
    after = disk.used_bytes + disk.promised_bytes + need_bytes
    must = max(after - limits.quota_bytes, disk_short, 0)
    over = after > limits.quota_bytes * limits.high_share
    aim = after - int(limits.quota_bytes * limits.low_share) if over else 0
    plan = plan_evictions(max(must, aim), snapshots, files, policy, now)
    if plan.freed_bytes < must:
        by_quota = after - limits.quota_bytes >= disk_short
        need = need_bytes if by_quota else need_disk_bytes
        raise _full(
            node,
            need,
            max(0, need - must + plan.freed_bytes),
            f"its quota of {format_size(limits.quota_bytes)}" if by_quota else "its disk",
            snapshots,
        )
    return plan


def plan_low_watermark(
    disk: DiskView,
    limits: Limits,
    snapshots: Sequence[SnapshotView],
    files: Sequence[BytesView],
    *,
    policy: str,
    now: float,
) -> EvictionPlan:
    """What goes until the low watermark: of the quota, or of the whole disk where none is set."""
    if limits.quota_bytes is None:
        taken = disk.total_bytes - disk.free_bytes + disk.promised_disk_bytes
        needed = taken - int(disk.total_bytes * limits.low_share)
    else:
        taken = disk.used_bytes + disk.promised_bytes
        needed = taken - int(limits.quota_bytes * limits.low_share)
    return plan_evictions(needed, snapshots, files, policy, now)


def count_room(
    disk: DiskView, limits: Limits, snapshots: Sequence[SnapshotView], files: Sequence[BytesView]
) -> int:
    """Bytes that a snapshot may have to be fetched here, after all that may go has gone."""
    free = disk.free_bytes - disk.promised_disk_bytes
    if limits.quota_bytes is None:
        return max(0, free)
    freeable = count_freed(files, {one.key for one in snapshots if not one.holds})
    left = limits.quota_bytes - disk.used_bytes - disk.promised_bytes
    return max(0, min(left, free) + freeable)


def _full(
    node: str, need_bytes: int, have_bytes: int, of: str, snapshots: Sequence[SnapshotView]
) -> DiskFull:
    held = [one for one in snapshots if one.holds]
    shown = [f"{one.repository} ({one.holds[0]})" for one in held[:_SHOWN]]
    if len(held) > _SHOWN:
        shown.append(f"{len(held) - _SHOWN} more")
    rest = f"; it holds what is in use: {', '.join(shown)}" if shown else ""
    return DiskFull(
        f"{need_bytes} bytes are needed on node {node}, {of} has {have_bytes} bytes that are free "
        f"or may be freed: nothing was downloaded and nothing deleted{rest}",
        hint="Unload what is in use, raise the quota or free the disk; `warmrack cache ls` and "
        "`warmrack cache df` show what lies there. Or name another node.",
    )
