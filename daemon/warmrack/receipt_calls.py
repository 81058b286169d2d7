"""Conversations about receipts: read, take away, check again."""

from warmrack.answers import read_error, read_json, read_record
from warmrack.job_calls import job_path
from warmrack.paths import quote_name
from warmrack.results import PoolKey, Receipt, Recheck
from warmrack.steps import API, Call, Conversation, send

_RECHECK_SECONDS = 3700.0
"""The service's own patience with a node that reads, and a little more."""


def get_receipt(id: str) -> Conversation[Receipt]:
    """What was asked, what was served and the checks that say so; by a job's or its own id."""
    answer = yield from send(Call(method="GET", path=receipt_path(id)))
    return read_record(Receipt, read_json(answer))


def export_receipt(id: str) -> Conversation[bytes]:
    """The receipt signed by the pool: the text of a DSSE envelope, to be kept in a file."""
    answer = yield from send(Call(method="GET", path=receipt_path(id), params={"format": "dsse"}))
    if not answer.ok:
        raise read_error(answer)
    return answer.body


def verify_receipt(id: str) -> Conversation[Recheck]:
    """The files on disk and the model in memory, read again; look at `passed`."""
    call = Call(method="POST", path=f"{receipt_path(id)}/verify", timeout_seconds=_RECHECK_SECONDS)
    return read_record(Recheck, read_json((yield from send(call))))


def get_pool_key() -> Conversation[PoolKey]:
    """The public key that the pool's signed receipts are checked with."""
    answer = yield from send(Call(method="GET", path=f"{API}/pool/key"))
    return read_record(PoolKey, read_json(answer))


def receipt_path(id: str) -> str:
    if isinstance(id, str) and id.startswith("rec_"):
        return f"{API}/receipts/{quote_name(id, 'receipt id')}"
    return f"{job_path(id)}/receipt"
