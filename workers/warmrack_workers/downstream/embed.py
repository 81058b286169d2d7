"""The task `embed`: one vector a text, the mean of its last hidden states, of length one."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from functools import partial

from pydantic import Field

from warmrack_store.errors import BadRequest, ContextOverflow
from warmrack_store.records import Record
from warmrack_workers.downstream import Usage, Warm


class EmbedInput(Record):
    texts: tuple[str, ...] = Field(min_length=1, max_length=2048)


class EmbedOutput(Record):
    vectors: tuple[tuple[float, ...], ...]
    usage: Usage


class EmbedTask:
    """One text a forward pass, in the batcher's turn: a text's vector does not depend on what else
    is in the request, and long requests let others in between."""

    name = "embed"
    summary = "Turn texts into vectors."
    input_type: type[Record] = EmbedInput
    output_type: type[Record] = EmbedOutput
    streams = False
    example: Mapping[str, object] = {"texts": ["Hello"]}

    def serves(self, warm: Warm) -> bool:
        return warm.tokenizer is not None and not warm.model.config.is_encoder_decoder

    def start(self, warm: Warm, payload: EmbedInput) -> AsyncGenerator[Record, None]:
        assert warm.tokenizer is not None
        prompts: list[list[int]] = [warm.tokenizer(text)["input_ids"] for text in payload.texts]
        for place, prompt in enumerate(prompts):
            if not prompt:
                raise BadRequest(f"texts.{place}: has no tokens")
            if len(prompt) > warm.context_tokens:
                raise ContextOverflow(
                    f"texts.{place}: has {len(prompt)} tokens, and the model's context holds "
                    f"{warm.context_tokens}",
                    hint="Shorten the text, or divide it.",
                )
        return _embed(warm, prompts)


async def _embed(warm: Warm, prompts: list[list[int]]) -> AsyncGenerator[Record, None]:
    vectors = [
        await asyncio.wrap_future(warm.batcher.run(partial(_vector, warm, prompt)))
        for prompt in prompts
    ]
    usage = Usage(prompt_tokens=sum(len(prompt) for prompt in prompts))
    yield EmbedOutput(vectors=tuple(vectors), usage=usage)


def _vector(warm: Warm, prompt: list[int]) -> tuple[float, ...]:
    import torch

    ids = torch.tensor([prompt], dtype=torch.long, device=warm.model.device)
    hidden = warm.model.base_model(input_ids=ids).last_hidden_state[0]
    mean = hidden.to(torch.float32).mean(dim=0)
    return tuple(torch.nn.functional.normalize(mean, dim=0).tolist())
