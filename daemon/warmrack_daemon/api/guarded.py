"""Answers that end in the middle when their caller loses the right to the model."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from warmrack_store.errors import WarmrackError

T = TypeVar("T")
Loss = Callable[[], Coroutine[Any, Any, WarmrackError]]
"""Waits, and gives the refusal once the right is lost."""


async def while_allowed(work: Coroutine[Any, Any, T], loss: Loss) -> T:
    """What `work` gives; it is cancelled, and the refusal raised, where the right is lost first."""
    doing, losing = asyncio.ensure_future(work), asyncio.ensure_future(loss())
    try:
        await asyncio.wait((doing, losing), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise losing.result()
        return doing.result()
    finally:
        doing.cancel()
        losing.cancel()
        await asyncio.wait((doing, losing))


async def pieces_while_allowed(pieces: AsyncIterator[bytes], loss: Loss) -> AsyncIterator[bytes]:
    """The pieces as they come; the refusal is raised between two of them, or while one is waited
    for."""
    losing = asyncio.ensure_future(loss())
    try:
        while True:
            coming = asyncio.ensure_future(anext(pieces, None))
            await asyncio.wait((coming, losing), return_when=asyncio.FIRST_COMPLETED)
            if losing.done():
                coming.cancel()
                await asyncio.wait((coming,))
                raise losing.result()
            if (piece := coming.result()) is None:
                return
            yield piece
    finally:
        losing.cancel()
        await asyncio.wait((losing,))
