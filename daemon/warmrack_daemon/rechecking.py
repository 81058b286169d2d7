"""A receipt checked again where its model is: which node is asked, and what a failure leads to."""

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from warmrack_daemon.node_calls import ask, ask_node
from warmrack_daemon.services import Services
from warmrack_store.cache.snapshots import FileState
from warmrack_store.errors import Integrity, ModelCold, NotFound
from warmrack_store.ledgers import copies, nodes, residents, resolutions
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.nodes import Node
from warmrack_store.ledgers.receipts import StoredReceipt
from warmrack_store.ledgers.residents import Resident
from warmrack_store.machine import machine_id
from warmrack_store.rechecks import (
    DiskCheck,
    DiskQuestion,
    MemoryCheck,
    Recheck,
    list_differences,
)
from warmrack_store.records import Record

_HINT = "Load it again: what is in quarantine is fetched anew; `consequences` lists it."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Where there is something to check; one of the two may be missing."""

    disk: Node | None
    host: tuple[Resident, Node] | None


async def recheck(services: Services, stored: StoredReceipt, job: Job | None) -> Recheck:
    """Read the files and, where it is warm, the model in memory again.

    Memory comes first, since a failed disk check moves files away that its audit reads. A
    resident of which anything no longer agrees is drained. Of several nodes with the files, the
    one with the warm model is asked, else the job's. Raises NotFound where the pool holds neither
    the files nor the model, HostLost where a node or host does not answer.
    """
    target = await run_in_threadpool(_find_target, services, stored, job.node if job else None)
    memory = await _check_memory(services, *target.host) if target.host else None
    disk = await _check_disk(services, stored, target.disk) if target.disk else None
    if memory is None and disk is None:
        raise _nothing_left(stored)
    differences = list_differences(stored.receipt, disk, memory)
    consequences = list(_tell_moved(disk)) if disk else []
    if differences and target.host is not None:
        await run_in_threadpool(_end_resident, services, target.host[0])
        consequences.append(f"resident {target.host[0].id} serves no longer")
    failure = Integrity("; ".join(differences), hint=_HINT) if differences else None
    return Recheck(
        receipt=stored.id,
        job=job.id if job is not None else None,
        passed=failure is None,
        disk=disk,
        memory=memory,
        differences=differences,
        consequences=tuple(consequences),
        error=failure.to_record() if failure is not None else None,
    )


def _tell_moved(disk: DiskCheck) -> Iterator[str]:
    for file in disk.files:
        if file.path in disk.quarantined:
            yield f"{file.path} is in quarantine"
        elif file.state in (FileState.CORRUPT, FileState.FOREIGN):
            yield f"{file.path} is where it was: a fetch is at work there, check again after it"


def _find_target(services: Services, stored: StoredReceipt, job_node: str | None) -> _Target:
    with services.database.read() as tx:
        resolution = resolutions.find_resolution(tx, stored.resolution_id)
        if resolution is None:
            raise NotFound(f"the resolution of receipt {stored.id} is not kept any more")
        there = {node.name: node for node in nodes.list_nodes(tx) if node.state.answers}
        resident = residents.find_warm(tx, resolution.cache_key)
        stores = {
            copy.store
            for copy in copies.list_copies_of(tx, resolution.repository, resolution.commit)
            if copy.complete and copy.selection == resolution.selection
        }
    host = (resident, there[resident.node]) if resident and resident.node in there else None
    holders = [node for node in there.values() if node.store in stores]
    preferred = host[1].name if host is not None else job_node
    holders.sort(key=lambda node: node.name != preferred)
    return _Target(disk=holders[0] if holders else None, host=host)


def _nothing_left(stored: StoredReceipt) -> NotFound:
    served = stored.receipt.served
    return NotFound(
        f"no node holds {served.repository} at {served.commit} any more",
        hint="Load or prefetch it again; the new job has a receipt of its own.",
    )


async def _check_memory(services: Services, resident: Resident, node: Node) -> MemoryCheck | None:
    """None where the host let its model go in the meantime."""
    here = node.machine == machine_id()
    url = "http://host/audit" if here else f"{node.url}/hosts/{resident.id}/audit"
    socket = resident.socket if here else None
    try:
        return await ask(services, url, Record(), MemoryCheck, socket=socket)
    except ModelCold:
        return None


async def _check_disk(services: Services, stored: StoredReceipt, node: Node) -> DiskCheck:
    question = DiskQuestion(resolution_id=stored.resolution_id)
    return await ask_node(services, node, "/snapshots/verify", question, DiskCheck)


def _end_resident(services: Services, resident: Resident) -> None:
    """The residency loop alone moves a resident; this is how it is asked to."""
    with services.database.write() as tx:
        residents.request_drain(tx, resident.id)
    services.wakeups.publish(f"node:{resident.node}")
