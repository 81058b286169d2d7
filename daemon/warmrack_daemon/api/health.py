"""Probes: alive, and ready to accept what must be stored."""

from typing import Any

import redis
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from warmrack_daemon.api.callers import ServicesOf
from warmrack_daemon.api.problems import problem
from warmrack_daemon.services import own_version
from warmrack_store.errors import StoreUnavailable
from warmrack_store.ledgers import nodes

router = APIRouter(tags=["probes"])


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "version": own_version()}


@router.get("/readyz")
def ready(services: ServicesOf, request: Request) -> Response:
    """The database and the broker answer; 503 else. `intake`: whether Celery messages are taken."""
    try:
        with services.database.read() as tx:
            nodes.list_nodes(tx)
        services.wakeups.ping()
    except StoreUnavailable as error:
        return problem(error)
    except redis.RedisError:
        return problem(StoreUnavailable("the broker does not answer"))
    body: dict[str, object] = {"status": "ok"}
    if request.app.state.intake_runs is not None:
        body["intake"] = "running" if request.app.state.intake_runs() else "stopped"
    return JSONResponse(body)


@router.get("/metrics")
def metrics() -> Response:
    """Prometheus metrics of this control plane."""
    body: Any = generate_latest()
    return Response(body, media_type=CONTENT_TYPE_LATEST)
