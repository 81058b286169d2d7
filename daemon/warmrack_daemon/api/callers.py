"""Who calls: the tenant and the Hub token of a request, never kept beyond it."""

from typing import Annotated

from fastapi import Depends, Header, Request

from warmrack_daemon.services import Services
from warmrack_store.errors import BadRequest

_MAX_TOKEN_LENGTH = 1024


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def hub_token(x_hub_token: Annotated[str | None, Header()] = None) -> str | None:
    """The caller's Hub token, from X-Hub-Token alone."""
    if x_hub_token is None or x_hub_token == "":
        return None
    printable = x_hub_token.isascii() and x_hub_token.isprintable() and " " not in x_hub_token
    if len(x_hub_token) > _MAX_TOKEN_LENGTH or not printable:
        raise BadRequest("X-Hub-Token is not a token", hint="Send the token alone, as hf_...")
    return x_hub_token


ServicesOf = Annotated[Services, Depends(services_of)]
HubToken = Annotated[str | None, Depends(hub_token)]
