"""The task `forward`: the raw scores of every possible next token after a prompt."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from functools import partial

from warmrack_store.errors import BadRequest
from warmrack_store.records import Record
from warmrack_workers.downstream import Warm, check_context


class ForwardInput(Record):
    prompt: str


class ForwardOutput(Record):
    tokens: tuple[int, ...]
    """The prompt's."""
    logits: tuple[float, ...]
    """One a token of the vocabulary, as the model gave them; exact, since a double holds any
    dtype a model computes in."""


class ForwardTask:
    name = "forward"
    summary = "The logits of the next token."
    input_type: type[Record] = ForwardInput
    output_type: type[Record] = ForwardOutput
    streams = False
    example: Mapping[str, object] = {"prompt": "Hello"}

    def serves(self, warm: Warm) -> bool:
        return warm.generates and warm.tokenizer is not None

    def start(self, warm: Warm, payload: ForwardInput) -> AsyncGenerator[Record, None]:
        assert warm.tokenizer is not None
        tokens: list[int] = warm.tokenizer(payload.prompt)["input_ids"]
        if not tokens:
            raise BadRequest("prompt: has no tokens", hint="Give at least one character.")
        check_context(len(tokens), 1, warm.context_tokens)
        return _forward(warm, tokens)


async def _forward(warm: Warm, tokens: list[int]) -> AsyncGenerator[Record, None]:
    logits = await asyncio.wrap_future(warm.batcher.run(partial(_logits, warm, tokens)))
    yield ForwardOutput(tokens=tuple(tokens), logits=logits)


def _logits(warm: Warm, tokens: list[int]) -> tuple[float, ...]:
    import torch

    ids = torch.tensor([tokens], dtype=torch.long, device=warm.model.device)
    return tuple(warm.model(input_ids=ids).logits[0, -1].tolist())
