"""A store as it is now: its disk and its rows, in the form that the budget is planned from."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warmrack_store.cache.inventory import Inventory, read_inventory
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.removal import is_locked
from warmrack_store.cache_budget import BytesView, DiskView, SnapshotView, snapshot_key
from warmrack_store.database import Database, Transaction
from warmrack_store.ledgers import copies, resolutions
from warmrack_store.ledgers.copies import Copy
from warmrack_store.ledgers.holders import SnapshotName, list_holds
from warmrack_store.ledgers.pool import get_rates
from warmrack_store.ledgers.reservations import Reservation, list_reservations

_HUB_LOCK = "a process holds huggingface_hub's lock on it"
_CONNECT_SECONDS = 1.0
"""Of bringing a snapshot back, however small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLook:
    """One look; `owned` gives the files of what is ours, path -> digest."""

    inventory: Inventory
    disk: DiskView
    copies: Sequence[Copy]
    owned: Mapping[SnapshotName, Mapping[str, str]]
    snapshots: tuple[SnapshotView, ...]
    files: tuple[BytesView, ...]
    now: float


def look_at_store(database: Database, cache_dir: Path, store: str) -> StoreLook:
    """To be used under the store's lease: reservations are read before the disk, so that what a
    fetch writes and lets go of meanwhile is counted at least once."""
    with database.read() as tx:
        promised = list_reservations(tx, store)
    inventory = read_inventory(cache_dir)
    with database.read() as tx:
        rows = copies.list_of_store(tx, store)
        owned = _list_owned(tx, rows)
        holds = list_holds(tx, store)
        rate, now = get_rates(tx).hub_bytes_per_second, tx.now
    folders = {name: _layout(cache_dir, name).folder_name for name in owned}
    by_folder = {f"{folders[name]}@{name[1]}": files for name, files in owned.items()}
    keys = {f"{folders[name]}@{name[1]}": snapshot_key(*name) for name in owned}
    files = inventory.list_bytes(by_folder, keys)
    snapshots = tuple(
        _view(cache_dir, name, [row for row in rows if _name(row) == name], files, holds, rate)
        for name in owned
    )
    return StoreLook(
        inventory=inventory,
        disk=_look_at_disk(cache_dir, inventory, promised),
        copies=rows,
        owned=owned,
        snapshots=snapshots,
        files=files,
        now=now,
    )


def _name(copy: Copy) -> SnapshotName:
    return copy.repository, copy.commit


def _layout(cache_dir: Path, name: SnapshotName) -> RepositoryLayout:
    return RepositoryLayout(cache_dir=cache_dir, repository=name[0])


def _list_owned(tx: Transaction, rows: Sequence[Copy]) -> dict[SnapshotName, dict[str, str]]:
    owned: dict[SnapshotName, dict[str, str]] = {}
    for copy in rows:
        files = owned.setdefault(_name(copy), {})
        if copy.files:
            files.update({file["path"]: file["digest"] for file in copy.files})
        elif part := resolutions.find_selection(tx, copy.repository, copy.commit, copy.selection):
            files.update({file.path: file.digest for file in part.files})
    return owned


def _view(
    cache_dir: Path,
    name: SnapshotName,
    rows: Sequence[Copy],
    files: Sequence[BytesView],
    holds: Mapping[SnapshotName, Sequence[str]],
    rate: float,
) -> SnapshotView:
    key = snapshot_key(*name)
    size_bytes = sum(file.size_bytes for file in files if key in file.users)
    held = tuple(holds.get(name, ()))
    if not held and is_locked(_layout(cache_dir, name)):
        held = (_HUB_LOCK,)
    return SnapshotView(
        repository=name[0],
        commit=name[1],
        size_bytes=size_bytes,
        last_used_at=max(row.last_used_at for row in rows),
        load_seconds=_CONNECT_SECONDS + size_bytes / rate,
        uses=sum(row.uses for row in rows),
        holds=held,
    )


def _look_at_disk(
    cache_dir: Path, inventory: Inventory, promised: Sequence[Reservation]
) -> DiskView:
    place = next(place for place in (cache_dir, *cache_dir.parents) if place.exists())
    usage = shutil.disk_usage(place)
    open_blobs = {
        (one.folder, digest): size_bytes
        for one in promised
        for digest, size_bytes in one.blobs.items()
        if (one.folder, digest) not in inventory.blobs
    }
    parts_bytes = inventory.count_parts(open_blobs)
    total = sum(open_blobs.values())
    return DiskView(
        used_bytes=inventory.used_bytes - parts_bytes,
        free_bytes=usage.free,
        total_bytes=usage.total,
        promised_bytes=total,
        promised_disk_bytes=max(0, total - parts_bytes),
    )
