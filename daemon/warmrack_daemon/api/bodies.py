"""The bodies of requests: how long they may be, and that they are JSON which can be passed on."""

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warmrack_store.errors import BadRequest
from warmrack_store.records import check_json

IMPORT_PATH = "/cache/import"
"""Its body is no JSON and of any size: it is passed on piece by piece, never held."""
_MAX_BODY_BYTES = 8 * 2**20
_UNBOUNDED = f"/api/v1{IMPORT_PATH}"


async def check_body(request: Request) -> None:
    """Raise BadRequest for what Python's parser takes for JSON and nothing else does: NaN,
    infinity (also as 1e999) and half a surrogate pair."""
    if request.url.path == _UNBOUNDED:
        return
    if await request.body():
        try:
            body = await request.json()
        except (ValueError, RecursionError):
            return  # the route refuses it itself, or takes no JSON
        try:
            check_json(body)
        except ValueError as error:
            raise BadRequest(f"body: {error}", hint="Send JSON as RFC 8259 has it.") from error


class BodyLimit:
    """Refuses bodies over 8 MiB before they are read into memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == _UNBOUNDED:
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
