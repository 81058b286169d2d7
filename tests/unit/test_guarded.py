"""An answer of which the caller loses the right in the middle."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from warmrack_daemon.api.guarded import pieces_while_allowed, while_allowed
from warmrack_store.errors import Gated, WarmrackError


async def never() -> WarmrackError:
    await asyncio.Event().wait()
    raise AssertionError


async def at_once() -> WarmrackError:
    return Gated("revoked")


async def two_then_silence() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"
    await asyncio.Event().wait()


async def two() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


def test_pieces_come_whole_while_the_right_lasts() -> None:
    async def read() -> list[bytes]:
        return [piece async for piece in pieces_while_allowed(two(), never)]

    assert asyncio.run(read()) == [b"one", b"two"]


def test_a_stream_ends_with_the_refusal_also_while_its_host_says_nothing() -> None:
    read: list[bytes] = []

    async def run() -> None:
        lost = asyncio.Event()

        async def when_told() -> WarmrackError:
            await lost.wait()
            return Gated("revoked")

        async for piece in pieces_while_allowed(two_then_silence(), when_told):
            read.append(piece)
            if len(read) == 2:
                lost.set()

    with pytest.raises(Gated, match="revoked"):
        asyncio.run(run())
    assert read == [b"one", b"two"]


def test_a_whole_answer_is_given_up_where_the_right_is_lost_first() -> None:
    async def work() -> str:
        await asyncio.Event().wait()
        return "never"

    with pytest.raises(Gated):
        asyncio.run(while_allowed(work(), at_once))


def test_a_whole_answer_that_is_there_is_given() -> None:
    async def work() -> str:
        return "done"

    assert asyncio.run(while_allowed(work(), never)) == "done"
