"""The task `chat`: the next message of a conversation, by the tokenizer's own template."""

from collections.abc import AsyncGenerator, Mapping

from pydantic import Field

from warmrack_store.errors import BadRequest
from warmrack_store.records import Record
from warmrack_workers.downstream import Warm
from warmrack_workers.downstream.generation import (
    GenerationOptions,
    GenerationOutput,
    start_generation,
)


class Message(Record):
    role: str = Field(min_length=1)
    content: str


class ChatInput(GenerationOptions):
    messages: tuple[Message, ...] = Field(min_length=1)


class ChatTask:
    name = "chat"
    summary = "Answer a conversation."
    input_type: type[Record] = ChatInput
    output_type: type[Record] = GenerationOutput
    streams = True
    example: Mapping[str, object] = {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4,
    }

    def serves(self, warm: Warm) -> bool:
        return warm.generates and bool(getattr(warm.tokenizer, "chat_template", None))

    def start(self, warm: Warm, payload: ChatInput) -> AsyncGenerator[Record, None]:
        from jinja2 import TemplateError

        assert warm.tokenizer is not None
        try:
            prompt: list[int] = warm.tokenizer.apply_chat_template(
                [message.model_dump() for message in payload.messages],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        except TemplateError as error:
            raise BadRequest(f"messages: the model's template refuses them: {error}") from error
        return start_generation(warm, prompt, payload)
