"""The table of downstream tasks: what a warm model can be asked to do."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import Field

from warmrack_store.errors import ContextOverflow, TaskNotFound
from warmrack_store.records import Record
from warmrack_workers.batcher import Batcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """A proved model, ready for work."""

    model: Any
    tokenizer: Any | None
    batcher: Batcher
    context_tokens: int
    generates: bool
    """The architecture is a causal language model."""


class Token(Record):
    """A piece of a text that is not finished."""

    text: str


class Usage(Record):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(0, ge=0)


class Task(Protocol):
    """One kind of work. `start` runs in the host's event loop, which is also what keeps the
    tokenizer, whose settings are not safe to change from two threads, to one thread."""

    name: str
    summary: str
    input_type: type[Record]
    output_type: type[Record]
    streams: bool
    example: Mapping[str, object]
    """A small valid payload; the docs and the conformance test use it."""

    def serves(self, warm: Warm) -> bool:
        """Whether this model can do it."""
        ...

    def start(self, warm: Warm, payload: Any) -> AsyncGenerator[Record, None]:
        """Refuses at once what cannot be done; then gives tokens, and `output_type` at the end.

        Closing the iterator ends the work.
        """
        ...


def check_context(prompt_tokens: int, max_tokens: int, context_tokens: int) -> None:
    """Raises ContextOverflow; nothing is ever cut off or clamped."""
    if prompt_tokens >= context_tokens:
        raise ContextOverflow(
            f"the prompt has {prompt_tokens} tokens and leaves no room for an answer: "
            f"the context holds {context_tokens}",
            hint="Shorten the prompt.",
        )
    if prompt_tokens + max_tokens > context_tokens:
        raise ContextOverflow(
            f"the prompt's {prompt_tokens} tokens and max_tokens {max_tokens} exceed "
            f"the context of {context_tokens}",
            hint=f"Lower max_tokens to {context_tokens - prompt_tokens} or shorten the prompt.",
        )


def list_tasks() -> tuple[Task, ...]:
    """Every task there is, in the order of their names."""
    from warmrack_workers.downstream.chat import ChatTask
    from warmrack_workers.downstream.embed import EmbedTask
    from warmrack_workers.downstream.forward import ForwardTask
    from warmrack_workers.downstream.generate import GenerateTask
    from warmrack_workers.downstream.tokenize import TokenizeTask

    return (ChatTask(), EmbedTask(), ForwardTask(), GenerateTask(), TokenizeTask())


def get_task(name: str, warm: Warm) -> Task:
    """Raises TaskNotFound also for a task that this model cannot do."""
    for task in list_tasks():
        if task.name == name and task.serves(warm):
            return task
    offered = ", ".join(task.name for task in list_tasks() if task.serves(warm))
    raise TaskNotFound(f"this model has no task {name!r}; it has: {offered}")
