"""Conversations about locks: kept by the service, read back."""

from warmrack.answers import read_json, read_record
from warmrack.lockfile import LockFile
from warmrack.paths import quote_name
from warmrack.results import StoredLock
from warmrack.steps import API, Call, Conversation, send


def keep_lock(lock: LockFile) -> Conversation[StoredLock]:
    """Store the lock with the service, where jobs name it by its digest."""
    call = Call(method="POST", path=f"{API}/locks", body=lock.model_dump(mode="json"))
    return read_record(StoredLock, read_json((yield from send(call))))


def get_lock(digest: str) -> Conversation[StoredLock]:
    """A lock that was made or used in this pool."""
    call = Call(method="GET", path=f"{API}/locks/{quote_name(digest, 'digest')}")
    return read_record(StoredLock, read_json((yield from send(call))))
