"""The Hub token of a call: the one that it brings, or the stored one that it names."""

from warmrack_daemon.services import Services
from warmrack_store.errors import Contradiction
from warmrack_store.ledgers import secrets
from warmrack_store.requests import LoadRequest


def pick_token(
    services: Services, request: LoadRequest, token: str | None, tenant: str = "default"
) -> str | None:
    """Raises NotFound for a name that is not stored, Contradiction for two tokens at once."""
    if request.hub_secret is None:
        return token
    if token is not None:
        raise Contradiction(
            "hub_secret and a Hub token are both given", hint="Leave one of the two out."
        )
    with services.database.read() as tx:
        return services.vault.decrypt(secrets.get_named(tx, tenant, request.hub_secret))
