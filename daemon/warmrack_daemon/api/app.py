"""The control plane's web application."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI

from warmrack_daemon.api import (
    cache,
    cache_contents,
    explanations,
    health,
    jobs,
    locks,
    pool,
    problems,
    receipts,
    secrets,
    tasks,
)
from warmrack_daemon.api.bodies import BodyLimit, check_body
from warmrack_daemon.gateway import Gateway
from warmrack_daemon.services import Services, own_version
from warmrack_daemon.waiters import Waiters


def create_app(services: Services, *, intake_runs: Callable[[], bool] | None = None) -> FastAPI:
    """The app around opened services, which it does not close; None: without an intake."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.waiters = Waiters(services.wakeups)
        app.state.waiters.start()
        app.state.gateway = Gateway(services, app.state.waiters)
        yield
        app.state.gateway.close()
        app.state.waiters.stop()

    app = FastAPI(
        title="warmrack",
        version=own_version(),
        summary="Queue model loads; get the weights you asked for, warm, with a receipt.",
        lifespan=lifespan,
        dependencies=[Depends(check_body)],
    )
    app.state.services = services
    app.state.intake_runs = intake_runs
    problems.install(app)
    api = APIRouter(prefix="/api/v1")
    for module in (
        jobs,
        locks,
        receipts,
        explanations,
        pool,
        cache,
        cache_contents,
        secrets,
        tasks,
    ):
        api.include_router(module.router)
    app.include_router(api)
    app.include_router(health.router)
    app.add_middleware(BodyLimit)
    return app
