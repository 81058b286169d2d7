"""Work for a client that may leave before it is done: it ends then, and gives its place back."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from warmrack_store.errors import Cancelled

T = TypeVar("T")


async def while_waited_for(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. It is cancelled, and Cancelled raised, where the client leaves first.

    To be called when the request's body has been read.
    """
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_leave(request))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Cancelled("the client has left")
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.wait((doing, leaving))


async def _leave(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
