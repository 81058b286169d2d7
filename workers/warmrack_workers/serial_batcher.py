"""The batcher that takes one sequence at a time, in a thread of its own.

The thread is apart from the event loop, because inside it the time to first token doubled.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from warmrack_store.errors import Defect, OutOfMemory, WarmrackError
from warmrack_workers.batcher import FinishReason, GenerationRequest, Step, Ticket
from warmrack_workers.exhaustion import ran_out
from warmrack_workers.sequence import Sequence

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Generation:
    request: GenerationRequest
    on_step: Callable[[Step], None]
    ticket: Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    function: Callable[[], Any]
    future: Future[Any]


class SerialBatcher:
    """One sequence at a time from its first to its last token."""

    def __init__(self, model: Any, *, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._queue: queue.SimpleQueue[_Generation | _Call | None] = queue.SimpleQueue()
        self._sequence: Sequence | None = None
        self._thread = threading.Thread(target=self._serve, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest, on_step: Callable[[Step], None]) -> Ticket:
        ticket = Ticket()
        self._queue.put(_Generation(request=request, on_step=on_step, ticket=ticket))
        return ticket

    def run(self, function: Callable[[], _Result]) -> Future[_Result]:
        future: Future[_Result] = Future()
        self._queue.put(_Call(function=function, future=future))
        return future

    @property
    def cache_bytes(self) -> int:
        sequence = self._sequence
        return sequence.cache_bytes if sequence is not None else 0

    def close(self) -> None:
        """Ends the thread after the work that is queued."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        # OpenMP keeps the number of threads per calling thread.
        torch.set_num_threads(self._threads)
        while (work := self._queue.get()) is not None:
            if isinstance(work, _Generation):
                self._generate(work)
            elif work.future.set_running_or_notify_cancel():
                self._call(work)

    def _generate(self, work: _Generation) -> None:
        if work.ticket.cancelled.is_set():
            return
        try:
            with torch.inference_mode():
                self._sequence = Sequence(self._model, work.request)
                for token, last in self._sequence.tokens():
                    if work.ticket.cancelled.is_set():
                        return
                    work.on_step(_step(token, last, self._sequence))
        except Exception as error:
            _log.exception("a generation failed", extra={"action": "generation-failed"})
            work.on_step(Step(error=wrap_failure(error)))
        finally:
            self._sequence = None

    def _call(self, work: _Call) -> None:
        try:
            with torch.inference_mode():
                work.future.set_result(work.function())
        except Exception as error:
            _log.exception("a forward pass failed", extra={"action": "forward-failed"})
            work.future.set_exception(wrap_failure(error))


def wrap_failure(error: Exception) -> WarmrackError:
    """The library's error as ours."""
    if isinstance(error, WarmrackError):
        return error
    if ran_out(error):
        return OutOfMemory(f"no memory is left for this request: {error}")
    return Defect(f"the model failed with {type(error).__name__}: {error}")


def _step(token: int, last: bool, sequence: Sequence) -> Step:
    if sequence.ended:
        return Step(token=token, finish=FinishReason.STOP)
    return Step(token=token, finish=FinishReason.LENGTH if last else None)
