"""Who calls: the tenant and the Hub token of a request, never kept beyond it."""

from typing import Annotated

from fastapi import Depends, Header, Request

from warmrack_daemon.services import Services
from warmrack_store.refs import check_token


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def hub_token(x_hub_token: Annotated[str | None, Header()] = None) -> str | None:
    """The caller's Hub token, from X-Hub-Token alone; Unauthorized where it is none."""
    return check_token(x_hub_token)


ServicesOf = Annotated[Services, Depends(services_of)]
HubToken = Annotated[str | None, Depends(hub_token)]
