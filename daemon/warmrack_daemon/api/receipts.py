"""Receipts over HTTP: shown, signed to leave the pool, checked again; and the key they need."""

from enum import StrEnum
from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from warmrack_daemon.api.callers import ServicesOf
from warmrack_daemon.api.names import Names, NamesOf, check_receipt
from warmrack_daemon.api.views import timestamp
from warmrack_daemon.rechecking import recheck
from warmrack_daemon.services import Services
from warmrack_store.attestation import Proved, make_statement, sign_statement
from warmrack_store.envelopes import SigningKey
from warmrack_store.errors import ReceiptNotFound
from warmrack_store.ledgers import jobs, receipts, resolutions
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.receipts import StoredReceipt

router = APIRouter(tags=["receipts"])
_ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"


class Format(StrEnum):
    JSON = "json"
    DSSE = "dsse"


@router.get("/jobs/{job_id}/receipt")
def show_job_receipt(
    job_id: str, services: ServicesOf, names: NamesOf, format: Format = Format.JSON
) -> Any:
    """The proof of what the job loaded or fetched; `format=dsse`: signed with the pool's key."""
    _, stored = _get_of_job(services, names, job_id)
    return _show(services, stored, job_id, format)


@router.get("/receipts/{receipt_id}")
def show_receipt(
    receipt_id: str, services: ServicesOf, names: NamesOf, format: Format = Format.JSON
) -> Any:
    """The receipt that an answer's X-Warmrack-Receipt names."""
    return _show(services, _get(services, names, receipt_id), None, format)


@router.post("/jobs/{job_id}/receipt/verify")
async def verify_job_receipt(job_id: str, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """Read the files on disk and the model in memory again, and say what no longer agrees."""
    job, stored = await run_in_threadpool(_get_of_job, services, names, job_id)
    return (await recheck(services, stored, job)).model_dump(mode="json")


@router.post("/receipts/{receipt_id}/verify")
async def verify_receipt(receipt_id: str, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """The same for a receipt by its own id."""
    stored = await run_in_threadpool(_get, services, names, receipt_id)
    return (await recheck(services, stored, None)).model_dump(mode="json")


@router.get("/pool/key")
def show_pool_key(services: ServicesOf) -> dict[str, str]:
    """The public key that this pool's signed receipts are checked with."""
    public = SigningKey(services.vault.signing_seed).public
    return {"keyid": public.keyid, "algorithm": "ed25519", "pem": public.pem}


def _get(services: Services, names: Names, receipt_id: str) -> StoredReceipt:
    with services.database.read() as tx:
        stored = receipts.get_stored(tx, receipt_id)
    _check(services, names, stored)
    return stored


def _check(services: Services, names: Names, stored: StoredReceipt) -> None:
    with services.database.read() as tx:
        resolution = resolutions.find_resolution(tx, stored.resolution_id)
    parts = resolution.parts if resolution is not None else ()
    proved = {part.repository for part in parts} | {stored.receipt.served.repository}
    check_receipt(names, stored.id, proved)


def _get_of_job(services: Services, names: Names, job_id: str) -> tuple[Job, StoredReceipt]:
    with services.database.read() as tx:
        job = jobs.get_job(tx, job_id)
        if job.receipt_id is None:
            raise ReceiptNotFound(f"job {job_id} is {job.state.value} and has no receipt")
        stored = receipts.get_stored(tx, job.receipt_id)
    _check(services, names, stored)
    return job, stored


def _show(services: Services, stored: StoredReceipt, job_id: str | None, format: Format) -> Any:
    if format is Format.JSON:
        record = stored.receipt.model_dump(mode="json")
        return {"id": stored.id, "job": job_id, **record}
    with services.database.read() as tx:
        resolution = resolutions.find_resolution(tx, stored.resolution_id)
    proved = Proved(
        id=stored.id,
        job=job_id,
        proved_at=timestamp(stored.created_at) or "",
        receipt=stored.receipt,
    )
    statement = make_statement(proved, resolution.files if resolution is not None else ())
    envelope = sign_statement(statement, SigningKey(services.vault.signing_seed))
    return Response(envelope.to_json(), media_type=_ENVELOPE_TYPE)
