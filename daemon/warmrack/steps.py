"""The steps of a conversation with the service, as data that a transport carries out.

A conversation is a generator: it yields a step, is sent what the step gave and returns what the
caller gets. It is written once; the blocking and the asynchronous transport each carry it out.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from warmrack_store.errors import BadRequest, WarmrackError
from warmrack_store.records import check_json

API = "/api/v1"
_SENT = "Numbers must be finite, texts UTF-8."
T = TypeVar("T")
Taken = TypeVar("Taken")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request; gives an `Answer`. Raises BadRequest for what no request can carry."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: object | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None
    """How long the service may stay silent; None: the client's own setting."""

    def __post_init__(self) -> None:
        try:
            check_json([dict(self.params), self.body])
        except ValueError as error:
            raise BadRequest(f"this cannot be sent: {error}", hint=_SENT) from error
        for name, value in self.headers.items():
            if not (value.isascii() and value.isprintable()):
                raise BadRequest(f"{name} holds characters that no header may hold", hint=_SENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """One HTTP request whose answer is read piecewise; gives an `Answer`, empty on success."""

    call: Call


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """Gives the next bytes of the opened answer, or None at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Gives None after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit(Generic[Item]):
    """Hands one item to whoever iterates; gives None when the next one is asked for."""

    item: Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the service sent; `headers` has lower-case names."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class End(Generic[T]):
    """The conversation is over; what it returned."""

    result: T


Step: TypeAlias = Call | Open | ReadChunk | Pause
Conversation: TypeAlias = Generator[Step, Any, T]
"""Ends with one result."""
Stream: TypeAlias = Generator[Step | Emit[Item], Any, None]
"""Hands out items until it ends."""

Outcome: TypeAlias = Answer | bytes | WarmrackError | None
"""What a step gave."""


def resume(conversation: Generator[Taken, Any, T], outcome: Outcome) -> Taken | End[T]:
    """The conversation's next step (its first, for the outcome None), or its end.

    An error is raised inside the conversation, at the step that met it.
    """
    try:
        if isinstance(outcome, WarmrackError):
            return conversation.throw(outcome)
        return conversation.send(outcome)
    except StopIteration as stop:
        return End(result=stop.value)


def send(call: Call) -> Conversation[Answer]:
    answer: Answer = yield call
    return answer


def open_stream(call: Call) -> Conversation[Answer]:
    answer: Answer = yield Open(call=call)
    return answer


def read_chunk() -> Conversation[bytes | None]:
    chunk: bytes | None = yield ReadChunk()
    return chunk
