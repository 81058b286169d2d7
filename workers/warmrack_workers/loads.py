"""The step of a job that brings its model into memory: ordered, waited for, its receipt its own."""

from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass

from warmrack_store.database import Database
from warmrack_store.errors import HostLost, Integrity
from warmrack_store.ledgers import claims, copies, receipts
from warmrack_store.ledgers.joins import Wish, get_wish
from warmrack_store.receipts import retitle
from warmrack_store.resolution import Resolution
from warmrack_store.states import JobState
from warmrack_workers.activity import Activity
from warmrack_workers.orders import Order, Warmed
from warmrack_workers.residency import Residency

_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in memory; `wish` is what was asked of the loop for it."""

    socket: str
    resident_id: str
    receipt_id: str
    wish: Wish


class Loads:
    """Orders models from the residency loop of this node."""

    def __init__(
        self, *, database: Database, residency: Residency, keep_alive: str, store: str
    ) -> None:
        self._database = database
        self._residency = residency
        self._keep_alive = keep_alive
        self._store = store

    def load(self, activity: Activity, resolution_id: str, resolution: Resolution) -> Loaded:
        """The model, warm for as long as the longest of those who wait for it now wants."""
        with self._database.read() as tx:
            wish = get_wish(tx, activity.claim.job_id, default_keep_alive=self._keep_alive)
        order = Order(
            claim=activity.claim,
            resolution_id=resolution_id,
            resolution=resolution,
            rank=wish.rank,
            keep_alive_seconds=wish.stay.keep_alive_seconds,
            pinned=wish.stay.pinned,
            store=self._store,
        )
        warmed = self._order(activity, order)
        return Loaded(
            socket=warmed.socket,
            resident_id=warmed.resident_id,
            receipt_id=self._own_receipt(warmed, resolution_id, resolution),
            wish=wish,
        )

    def finish(self, activity: Activity, loaded: Loaded) -> bool:
        """End the job as succeeded; False where somebody has joined it since, who wants more.

        The job's row is locked while others join it, so nobody does between the look and the end.
        """
        activity.check()
        with self._database.write() as tx:
            job = claims.get_held(tx, activity.claim)
            if get_wish(tx, job.id, default_keep_alive=self._keep_alive).stay != loaded.wish.stay:
                return False
            claims.finish(
                tx,
                activity.claim,
                JobState.SUCCEEDED,
                resident_id=loaded.resident_id,
                receipt_id=loaded.receipt_id,
            )
        return True

    def _order(self, activity: Activity, order: Order) -> Warmed:
        answer = self._residency.want(order)
        try:
            return _wait(answer, activity)
        except Integrity:
            self._forget_copy(order.resolution)
            raise
        finally:
            if not answer.done():
                self._residency.withdraw(order.claim)

    def _forget_copy(self, resolution: Resolution) -> None:
        """What failed the audit is verified anew, and fetched anew where need be, next time."""
        with self._database.write() as tx:
            for part in resolution.parts:
                copies.forget_completeness(
                    tx, store=self._store, repository=part.repository, commit=part.commit
                )

    def _own_receipt(self, warmed: Warmed, resolution_id: str, resolution: Resolution) -> str:
        """The resident's receipt, or for another spelling of the same weights one that says so."""
        if warmed.resolution_id == resolution_id:
            return warmed.receipt_id
        with self._database.write() as tx:
            proof = receipts.find_receipt(tx, warmed.receipt_id)
            if proof is None:
                raise HostLost(f"resident {warmed.resident_id} has no receipt")
            own = retitle(proof, resolution)
            return receipts.insert_receipt(tx, resolution_id, own)


def _wait(answer: "Future[Warmed]", activity: Activity) -> Warmed:
    """The answer, while looking whether the job is still wanted."""
    while True:
        try:
            return answer.result(timeout=_LOOK_SECONDS)
        except NotYet:
            activity.check()
