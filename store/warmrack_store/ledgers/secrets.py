"""Encrypted Hub tokens, each living as long as the job that brought it."""

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.ledgers.ids import new_id
from warmrack_store.schema import jobs, secrets
from warmrack_store.states import TERMINAL


def insert_secret(tx: Transaction, ciphertext: bytes) -> str:
    """The new secret's id; only ciphertext ever reaches this table."""
    secret_id = new_id("sec")
    tx.execute(secrets.insert().values(id=secret_id, ciphertext=ciphertext, created_at=tx.now))
    return secret_id


def find_ciphertext(tx: Transaction, secret_id: str | None) -> bytes | None:
    if secret_id is None:
        return None
    row = tx.find(sa.select(secrets.c.ciphertext).where(secrets.c.id == secret_id))
    return bytes(row["ciphertext"]) if row else None


def delete_ended(tx: Transaction, job_id: str) -> None:
    """Forget the secrets of a job, and of those joined to it, that have ended."""
    ended = sa.select(jobs.c.secret_id).where(
        sa.or_(jobs.c.id == job_id, jobs.c.joined_to == job_id),
        jobs.c.state.in_(TERMINAL),
        jobs.c.secret_id.is_not(None),
    )
    tx.execute(secrets.delete().where(secrets.c.id.in_(ended)))
