"""The hosts that a former agent of a node has left running: taken over, or ended for certain."""

import time

import structlog

from warmrack_store.database import Database
from warmrack_store.ledgers import residents
from warmrack_store.ledgers.residents import Resident
from warmrack_store.states import ResidentState
from warmrack_workers.decide import Seat
from warmrack_workers.effects import HostEffects
from warmrack_workers.processes import ProcessIdentity

log = structlog.get_logger()


def adopt_hosts(
    database: Database, effects: HostEffects, *, node: str
) -> dict[str, tuple[Seat, str, str]]:
    """For each resident that goes on: its seat, its resolution's id and its socket.

    A row whose host is not found by its socket may still have a process (its spec is of another
    version, it hangs): it is ended by the pid and start time that the row holds.
    """
    with database.read() as tx:
        rows = {row.id: row for row in residents.list_live(tx, node=node)}
        offset = time.monotonic() - tx.now
    adopted: dict[str, tuple[Seat, str, str]] = {}
    for spec, status in effects.find_left_running():
        row = rows.get(spec.resident_id)
        if row is None or row.node_epoch != spec.epoch:
            effects.discard(spec.resident_id)
            continue
        seat = _take_seat(row, in_flight=status.in_flight, offset_seconds=offset)
        adopted[row.id] = (seat, row.resolution_id, str(spec.socket_path))
        effects.adopt(spec, status)
    _write_off(database, effects, [row for row in rows.values() if row.id not in adopted])
    log.info("The agent starts.", action="agent-start", node=node, adopted=len(adopted))
    return adopted


def _take_seat(row: Resident, *, in_flight: int, offset_seconds: float) -> Seat:
    """`offset_seconds` leads from the database's clock to the loop's."""
    return Seat(
        id=row.id,
        key=row.cache_key,
        device=row.device,
        size_bytes=row.charged_bytes,
        state=ResidentState.STARTING,
        in_flight=in_flight,
        last_used_at=row.last_used_at + offset_seconds,
        keep_alive_seconds=row.keep_alive_seconds,
        pinned=row.pinned,
    )


def _write_off(database: Database, effects: HostEffects, lost: list[Resident]) -> None:
    for row in lost:
        effects.discard(row.id, _find_process(row))
    with database.write() as tx:
        for row in lost:
            residents.update_resident(tx, row.id, state=ResidentState.GONE, cause="agent-restarted")


def _find_process(row: Resident) -> ProcessIdentity | None:
    if row.pid is None or row.start_time is None:
        return None
    return ProcessIdentity(pid=row.pid, start_time=row.start_time)
