"""Which stored lock a submission is held to."""

from warmrack.lockfile import LockEntry, LockFile
from warmrack_store.database import Transaction
from warmrack_store.errors import LockMismatch
from warmrack_store.ledgers import locks
from warmrack_store.records import parse_record
from warmrack_store.requests import LockUse
from warmrack_store.submissions import Submission


def settle_lock(tx: Transaction, submission: Submission, tenant: str) -> Submission:
    """The submission with the entry of the lock that it names, or with the name of a lock that is
    made of the entry it brings. Raises NotFound, or LockMismatch where both are there and differ."""
    request = submission.request
    if submission.lock_digest is not None:
        stored = locks.get_lock(tx, submission.lock_digest)
        held = parse_record(LockFile, {"entries": stored.entries, "digest": stored.digest})
        locked = held.find(request)
        if request.locked not in (None, locked):
            raise LockMismatch(f"the lock holds something else for {request.model}")
        found = request.model_copy(update={"locked": locked})
        return submission.model_copy(update={"request": found})
    if request.locked is None:
        return submission
    asked = request.model_copy(update={"lock": LockUse.NONE, "locked": None})
    lock = LockFile.of((LockEntry(request=asked, locked=request.locked),))
    locks.put_lock(tx, lock.digest, lock.list_entries(), tenant=tenant)
    return submission.model_copy(update={"lock_digest": lock.digest})
