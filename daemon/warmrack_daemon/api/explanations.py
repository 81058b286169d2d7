"""What a request would become and need, over HTTP; nothing is downloaded or stored for it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from warmrack_daemon.api.callers import HubToken, ServicesOf
from warmrack_daemon.explaining import estimate, explain
from warmrack_store.requests import LoadRequest

router = APIRouter(tags=["explanations"])


@router.post("/explain")
def explain_request(body: LoadRequest, services: ServicesOf, token: HubToken) -> dict[str, Any]:
    """What the request becomes and where it would fit, with the trail of reasons."""
    return explain(services, body, token)


@router.post("/estimate")
def estimate_request(
    body: LoadRequest,
    services: ServicesOf,
    token: HubToken,
    batch: Annotated[int, Query(ge=1, le=4096)] = 1,
) -> dict[str, Any]:
    """The memory the request needs, and each device held against it."""
    return estimate(services, body, token, batch=batch)
