"""What the residency loop writes down of its residents, each in one short transaction."""

from collections.abc import Iterable

from warmrack_store.database import Database
from warmrack_store.ledgers import rates, receipts, residents
from warmrack_store.ledgers.pool import HOST_SECONDS
from warmrack_store.ledgers.residents import Resident
from warmrack_store.states import ResidentState
from warmrack_workers.decide import Seat
from warmrack_workers.host_status import HostStatus
from warmrack_workers.orders import Order
from warmrack_workers.processes import ProcessIdentity


class ResidentRows:
    """The rows of one node's residents; every call may raise StoreUnavailable and change nothing."""

    def __init__(self, database: Database, *, node: str, epoch: int) -> None:
        self._database = database
        self._node = node
        self._epoch = epoch

    def list_live(self) -> dict[str, Resident]:
        with self._database.read() as tx:
            return {row.id: row for row in residents.list_live(tx, node=self._node)}

    def add(self, seat: Seat, order: Order, socket: str) -> None:
        resolution = order.resolution
        row = {
            "id": seat.id,
            "state": seat.state,
            "cache_key": seat.key,
            "resolution_id": order.resolution_id,
            "repository": resolution.repository,
            "commit": resolution.commit,
            "precision": resolution.precision,
            "node": self._node,
            "node_epoch": self._epoch,
            "device": seat.device,
            "socket": socket,
            "charged_bytes": seat.size_bytes,
            "pinned": seat.pinned,
            "keep_alive_seconds": seat.keep_alive_seconds,
        }
        with self._database.write() as tx:
            residents.insert_resident(tx, row)

    def note_launch(self, seat_id: str, identity: ProcessIdentity) -> None:
        with self._database.write() as tx:
            residents.update_resident(tx, seat_id, pid=identity.pid, start_time=identity.start_time)

    def note_warm(
        self, seat_id: str, resolution_id: str, status: HostStatus, load_seconds: float
    ) -> str | None:
        """The receipt's id; an adopted host has one already."""
        with self._database.write() as tx:
            known = residents.find_resident(tx, seat_id)
            receipt_id = known.receipt_id if known is not None else None
            if receipt_id is None and status.receipt is not None:
                receipt_id = receipts.insert_receipt(tx, resolution_id, status.receipt)
                rates.record_rate(tx, self._node, HOST_SECONDS, load_seconds)
            residents.update_resident(
                tx,
                seat_id,
                state=ResidentState.WARM,
                receipt_id=receipt_id,
                pid=status.pid,
                start_time=status.start_time,
                warm_at=known.warm_at if known is not None and known.warm_at else tx.now,
            )
        return receipt_id

    def note_lease(self, seat_id: str, *, keep_alive_seconds: float, pin: bool) -> None:
        """Never takes a pin off: somebody may have set one that the loop has not read yet."""
        pinned = {"pinned": True} if pin else {}
        with self._database.write() as tx:
            residents.update_resident(tx, seat_id, keep_alive_seconds=keep_alive_seconds, **pinned)

    def note_end(self, seat_id: str, cause: str) -> None:
        with self._database.write() as tx:
            residents.update_resident(tx, seat_id, state=ResidentState.GONE, cause=cause)

    def note_use(self, seats: Iterable[Seat], now: float) -> None:
        """What others look at; `now` is of the loop's clock, which the seats' times are of."""
        with self._database.write() as tx:
            for seat in seats:
                residents.update_resident(
                    tx,
                    seat.id,
                    state=seat.state,
                    in_flight=seat.in_flight,
                    last_used_at=tx.now - (now - seat.last_used_at),
                )
