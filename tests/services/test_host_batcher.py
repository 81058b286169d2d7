"""The queue in front of a model: turns, cancelled places and failures."""

import queue
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.hub.models import get_model_folder
from warmrack_store.errors import Defect, OutOfMemory
from warmrack_workers.batcher import FinishReason, GenerationRequest, Step
from warmrack_workers.serial_batcher import SerialBatcher

REQUEST = GenerationRequest(prompt=(70, 71, 72), max_tokens=5)
WAIT_SECONDS = 30


@pytest.fixture
def batcher() -> Iterator[SerialBatcher]:
    model: Any = AutoModelForCausalLM.from_pretrained(get_model_folder("tiny_qwen"))
    batcher = SerialBatcher(model, threads=1)
    yield batcher
    batcher.close()


class Collected:
    """The steps of one request, and the moment of its last."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.done = threading.Event()

    def __call__(self, step: Step) -> None:
        self.steps.append(step)
        if step.finish or step.error:
            self.done.set()

    def wait(self) -> list[Step]:
        assert self.done.wait(WAIT_SECONDS)
        return self.steps


def test_each_token_is_a_step_and_the_last_says_why(batcher: SerialBatcher) -> None:
    collected = Collected()
    batcher.submit(REQUEST, collected)
    steps = collected.wait()
    assert len(steps) == 5
    assert [step.finish for step in steps] == [None] * 4 + [FinishReason.LENGTH]
    assert all(isinstance(step.token, int) for step in steps)


def test_work_is_done_in_the_order_of_its_arrival(batcher: SerialBatcher) -> None:
    order: queue.SimpleQueue[str] = queue.SimpleQueue()
    gate = threading.Event()
    batcher.run(gate.wait)
    batcher.submit(REQUEST, lambda step: order.put("first") if step.finish else None)
    batcher.run(lambda: order.put("call"))
    last = Collected()
    batcher.submit(REQUEST, last)
    gate.set()
    last.wait()
    assert [order.get(), order.get()] == ["first", "call"]


def test_cancelled_request_gives_its_place_to_the_next(batcher: SerialBatcher) -> None:
    gate = threading.Event()
    batcher.run(gate.wait)
    cancelled, kept = Collected(), Collected()
    ticket = batcher.submit(REQUEST, cancelled)
    batcher.submit(REQUEST, kept)
    ticket.cancel()
    gate.set()
    kept.wait()
    assert cancelled.steps == []


def test_cancelled_stream_ends_after_the_step_under_way(batcher: SerialBatcher) -> None:
    steps: list[Step] = []
    started = threading.Event()

    def on_step(step: Step) -> None:
        steps.append(step)
        assert started.wait(WAIT_SECONDS)

    ticket = batcher.submit(GenerationRequest(prompt=(70,), max_tokens=400), on_step)
    ticket.cancel()
    started.set()
    following = Collected()
    batcher.submit(REQUEST, following)
    following.wait()
    assert len(steps) <= 1
    assert batcher.cache_bytes == 0


def test_cache_in_use_is_counted(batcher: SerialBatcher) -> None:
    seen: list[int] = []
    done = threading.Event()

    def on_step(step: Step) -> None:
        seen.append(batcher.cache_bytes)
        if step.finish:
            done.set()

    batcher.submit(REQUEST, on_step)
    assert done.wait(WAIT_SECONDS)
    # 4 layers, keys and values, 2 heads of 16 in fp32, 3 tokens of the prompt.
    assert seen[0] == 4 * 2 * 2 * 16 * 4 * 3
    assert seen == sorted(seen)


def test_failing_model_is_a_defect_of_this_request_only() -> None:
    batcher = SerialBatcher(SimpleNamespace(device="nowhere"), threads=1)
    collected = Collected()
    batcher.submit(REQUEST, collected)
    (step,) = collected.wait()
    assert isinstance(step.error, Defect)
    assert batcher.run(lambda: 7).result(WAIT_SECONDS) == 7
    batcher.close()


def test_memory_that_runs_out_on_a_gpu_is_said_as_such(batcher: SerialBatcher) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("no more")

    with pytest.raises(OutOfMemory, match="no more"):
        batcher.run(fail).result(WAIT_SECONDS)


def test_memory_that_runs_out_on_the_cpu_is_said_as_such(batcher: SerialBatcher) -> None:
    with pytest.raises(OutOfMemory, match="allocate memory"):
        batcher.run(lambda: torch.empty(1 << 60, dtype=torch.uint8)).result(WAIT_SECONDS)
