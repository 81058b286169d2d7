"""The task `generate`: a text that continues a prompt."""

from collections.abc import AsyncGenerator, Mapping

from warmrack_store.errors import BadRequest
from warmrack_store.records import Record
from warmrack_workers.downstream import Warm
from warmrack_workers.downstream.generation import (
    GenerationOptions,
    GenerationOutput,
    start_generation,
)


class GenerateInput(GenerationOptions):
    prompt: str


class GenerateTask:
    name = "generate"
    summary = "Continue a prompt."
    input_type: type[Record] = GenerateInput
    output_type: type[Record] = GenerationOutput
    streams = True
    example: Mapping[str, object] = {"prompt": "Hello", "max_tokens": 4}

    def serves(self, warm: Warm) -> bool:
        return warm.generates and warm.tokenizer is not None

    def start(self, warm: Warm, payload: GenerateInput) -> AsyncGenerator[Record, None]:
        assert warm.tokenizer is not None
        prompt: list[int] = warm.tokenizer(payload.prompt)["input_ids"]
        if not prompt:
            raise BadRequest("prompt: has no tokens", hint="Give at least one character.")
        return start_generation(warm, prompt, payload)
