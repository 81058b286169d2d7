"""The options of a generated text, and the way from prompt tokens to pieces of text."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from pydantic import Field

from warmrack_store.records import Record
from warmrack_workers.batcher import Batcher, FinishReason, GenerationRequest, Step
from warmrack_workers.downstream import Token, Usage, Warm, check_context
from warmrack_workers.downstream.text_stream import TextStream


class GenerationOptions(Record):
    """How a text is made. The repository's own sampling defaults (temperature, top_p, top_k) are
    not used, since the request always says; its end tokens and penalties are."""

    max_tokens: int = Field(128, ge=1)
    temperature: float = Field(0.0, ge=0, le=100, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1)
    stop: tuple[str, ...] = Field((), max_length=16)
    seed: int | None = Field(None, ge=0, lt=2**63)


class GenerationOutput(Record):
    text: str
    finish_reason: Literal["stop", "length"]
    usage: Usage


def start_generation(
    warm: Warm, prompt: list[int], options: GenerationOptions
) -> AsyncGenerator[Record, None]:
    """Raises ContextOverflow before anything is queued."""
    check_context(len(prompt), options.max_tokens, warm.context_tokens)
    request = GenerationRequest(
        prompt=tuple(prompt),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
    )
    return _generate(warm, request, TextStream(warm.tokenizer, options.stop))


async def _generate(
    warm: Warm, request: GenerationRequest, stream: TextStream
) -> AsyncGenerator[Record, None]:
    pieces: list[str] = []
    finish, count = FinishReason.LENGTH, 0
    async with aclosing(stream_steps(warm.batcher, request)) as steps:
        async for step in steps:
            count += 1
            piece = "" if step.token is None else stream.push(step.token)
            if step.finish:
                finish = step.finish
                piece += stream.finish()
            if piece:
                pieces.append(piece)
                yield Token(text=piece)
            if stream.stopped:
                finish = FinishReason.STOP
                break
    yield GenerationOutput(
        text="".join(pieces),
        finish_reason=finish.value,
        usage=Usage(prompt_tokens=len(request.prompt), completion_tokens=count),
    )


async def stream_steps(batcher: Batcher, request: GenerationRequest) -> AsyncGenerator[Step, None]:
    """The steps as they come. Raises the batcher's error; closing it gives the place back."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Step] = asyncio.Queue()

    def deliver(step: Step) -> None:
        loop.call_soon_threadsafe(arrived.put_nowait, step)

    ticket = batcher.submit(request, deliver)
    try:
        while True:
            step = await arrived.get()
            if step.error:
                raise step.error
            yield step
            if step.finish:
                return
    finally:
        ticket.cancel()
