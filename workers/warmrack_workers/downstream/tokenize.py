"""The task `tokenize`: a text as the model's own token ids."""

from collections.abc import AsyncGenerator, Mapping

from warmrack_store.records import Record
from warmrack_workers.downstream import Warm


class TokenizeInput(Record):
    text: str
    add_special_tokens: bool = True


class TokenizeOutput(Record):
    tokens: tuple[int, ...]
    count: int


class TokenizeTask:
    name = "tokenize"
    summary = "Count and list the tokens of a text."
    input_type: type[Record] = TokenizeInput
    output_type: type[Record] = TokenizeOutput
    streams = False
    example: Mapping[str, object] = {"text": "Hello"}

    def serves(self, warm: Warm) -> bool:
        return warm.tokenizer is not None

    async def start(self, warm: Warm, payload: TokenizeInput) -> AsyncGenerator[Record, None]:
        assert warm.tokenizer is not None
        encoded = warm.tokenizer(payload.text, add_special_tokens=payload.add_special_tokens)
        tokens = tuple(encoded["input_ids"])
        yield TokenizeOutput(tokens=tokens, count=len(tokens))
