"""The control plane's web application."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warmrack_daemon.api import explanations, health, jobs, pool, problems, receipts, tasks
from warmrack_daemon.gateway import Gateway
from warmrack_daemon.services import Services, own_version
from warmrack_daemon.waiters import Waiters
from warmrack_store.errors import BadRequest

_MAX_BODY_BYTES = 8 * 2**20


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
    )
    app.state.services = services
    app.state.intake_runs = intake_runs
    problems.install(app)
    api = APIRouter(prefix="/api/v1")
    for module in (jobs, receipts, explanations, pool, tasks):
        api.include_router(module.router)
    app.include_router(api)
    app.include_router(health.router)
    app.add_middleware(BodyLimit)
    return app


class BodyLimit:
    """Refuses bodies over 8 MiB before they are read into memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > _MAX_BODY_BYTES:
                raise BadRequest(f"the body is longer than {_MAX_BODY_BYTES} bytes")
            return message

        await self._app(scope, limited, send)
