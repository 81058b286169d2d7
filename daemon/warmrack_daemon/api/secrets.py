"""Stored Hub tokens over HTTP: put, named, removed, encrypted anew; never read."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field

from warmrack_daemon.api.callers import ServicesOf
from warmrack_daemon.api.views import timestamp
from warmrack_store.errors import BadRequest
from warmrack_store.ledgers import secrets
from warmrack_store.records import Record
from warmrack_store.refs import check_token

router = APIRouter(prefix="/secrets", tags=["secrets"])
_TENANT = "default"
SecretName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]


class NewSecret(Record):
    """The token to be stored; it is shown to nobody again."""

    token: str = Field(repr=False)


@router.put("/{name}", status_code=204)
def put_secret(name: SecretName, body: NewSecret, services: ServicesOf) -> None:
    """Store a Hub token under a name that requests give as `hub_secret`."""
    token = check_token(body.token)
    if token is None:
        raise BadRequest("token is empty")
    with services.database.write() as tx:
        secrets.put_named(tx, _TENANT, name, services.vault.encrypt(token))


@router.get("")
def list_secrets(services: ServicesOf) -> dict[str, Any]:
    """The names of the stored tokens."""
    with services.database.read() as tx:
        found = secrets.list_named(tx, _TENANT)
    items = [{"name": one.name, "created_at": timestamp(one.created_at)} for one in found]
    return {"items": items, "next": None}


@router.delete("/{name}", status_code=204)
def delete_secret(name: SecretName, services: ServicesOf) -> None:
    """Forget a stored token."""
    with services.database.write() as tx:
        secrets.delete_named(tx, _TENANT, name)


@router.post("/rotate")
def rotate_secrets(services: ServicesOf) -> dict[str, int]:
    """Encrypt every stored token with the newest key, after which the older ones can go."""
    with services.database.write() as tx:
        return {"renewed": secrets.renew_all(tx, services.vault.renew)}
