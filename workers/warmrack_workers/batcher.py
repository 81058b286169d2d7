"""The queue in front of a model, as its tasks see it: requests in, tokens out, one by one.

No torch here: what a task takes and gives is also asked by processes that never load a model.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from warmrack_store.errors import WarmrackError

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    """0: greedy."""
    top_p: float = 1.0
    seed: int | None = None
    """None: drawn anew, so that two forks of one nursery never draw the same."""


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One token; the last step of a request has `finish` or `error`."""

    token: int | None = None
    finish: FinishReason | None = None
    error: WarmrackError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A place in the queue. After `cancel` the step under way is the last one, and goes to nobody."""

    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.cancelled.set()


class Batcher(Protocol):
    """All work on one model's device goes through here, first come, first served."""

    def submit(self, request: GenerationRequest, on_step: Callable[[Step], None]) -> Ticket:
        """`on_step` is called in the batcher's thread and must return at once."""
        ...

    def run(self, function: Callable[[], _Result]) -> Future[_Result]:
        """Any other forward pass, in its turn."""
        ...

    @property
    def cache_bytes(self) -> int:
        """What the sequences under way hold in their caches."""
        ...

    def close(self) -> None: ...
