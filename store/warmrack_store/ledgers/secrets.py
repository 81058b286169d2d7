"""Encrypted Hub tokens: those of jobs, each living as long as its job, and those with a name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.errors import NotFound
from warmrack_store.ledgers.ids import new_id
from warmrack_store.schema import decisions, jobs, secrets
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSecret:
    """A stored token by its name; the token itself never leaves."""

    name: str
    created_at: float


def put_named(tx: Transaction, tenant: str, name: str, ciphertext: bytes) -> None:
    """Store a tenant's token under a name, instead of the one that has it."""
    tx.serialize(f"secret:{tenant}:{name}")
    values = {"ciphertext": ciphertext, "created_at": tx.now}
    if not tx.change(secrets.update().where(_named(tenant, name)).values(**values)):
        named = {"id": new_id("sec"), "tenant": tenant, "name": name}
        tx.execute(secrets.insert().values(**named, **values))


def get_named(tx: Transaction, tenant: str, name: str) -> bytes:
    """The ciphertext; raises NotFound."""
    row = tx.find(sa.select(secrets.c.ciphertext).where(_named(tenant, name)))
    if row is None:
        raise _missing(name)
    return bytes(row["ciphertext"])


def list_named(tx: Transaction, tenant: str) -> Sequence[NamedSecret]:
    query = sa.select(secrets.c.name, secrets.c.created_at).where(
        secrets.c.tenant == tenant, secrets.c.name.is_not(None)
    )
    return [NamedSecret(**row) for row in tx.list(query.order_by(secrets.c.name))]


def delete_named(tx: Transaction, tenant: str, name: str) -> None:
    """Raises NotFound."""
    if not tx.change(secrets.delete().where(_named(tenant, name))):
        raise _missing(name)


def renew_all(tx: Transaction, renew: Callable[[bytes], bytes]) -> int:
    """Encrypt every stored token anew; how many there were."""
    renewed = 0
    for row in tx.list(sa.select(secrets.c.id, secrets.c.ciphertext)):
        fresh = renew(bytes(row["ciphertext"]))
        tx.execute(secrets.update().where(secrets.c.id == row["id"]).values(ciphertext=fresh))
        renewed += 1
    held = sa.select(decisions).where(decisions.c.ciphertext.is_not(None))
    for row in tx.list(held):
        same = sa.and_(decisions.c.repository == row["repository"], decisions.c.mark == row["mark"])
        fresh = renew(bytes(row["ciphertext"]))
        tx.execute(decisions.update().where(same).values(ciphertext=fresh))
        renewed += 1
    return renewed


def _named(tenant: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(secrets.c.tenant == tenant, secrets.c.name == name)


def _missing(name: str) -> NotFound:
    return NotFound(
        f"there is no secret {name[:80]!r}", hint="`warmrack secrets ls` lists the stored ones."
    )
