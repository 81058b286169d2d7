"""What every downstream task of the table owes, and the laws of streamed text."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.hub.models import get_model_folder
from tests.services.hosts import make_snapshot, make_spec, runtime_folder
from warmrack_store.errors import BadRequest, ContextOverflow, NotFound
from warmrack_store.records import Record, parse_record
from warmrack_workers.backends.exact import ExactBackend
from warmrack_workers.batcher import GenerationRequest
from warmrack_workers.downstream import Task, Token, Warm, check_context, get_task, list_tasks
from warmrack_workers.downstream.text_stream import TextStream
from warmrack_workers.sequence import Sequence
from warmrack_workers.serial_batcher import SerialBatcher

TASKS = list_tasks()
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More of them only wait for one another on a busy machine."""
    torch.set_num_threads(1)


def load_warm(name: str) -> Iterator[Warm]:
    with runtime_folder() as folder:
        spec = make_spec(make_snapshot(name, folder / "cache"), folder)
        loaded = ExactBackend().load(spec)
        batcher = SerialBatcher(loaded.model, threads=1)
        yield Warm(
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            batcher=batcher,
            context_tokens=spec.context_tokens,
            generates=spec.resolution.generates,
        )
        batcher.close()


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    yield from load_warm("tiny_qwen")


@pytest.fixture(scope="module")
def encoder() -> Iterator[Warm]:
    yield from load_warm("tiny_bert")


def run(task: Task, warm: Warm, payload: Any) -> list[Record]:
    async def collect() -> list[Record]:
        async with aclosing(task.start(warm, parse_record(task.input_type, payload))) as events:
            return [event async for event in events]

    return asyncio.run(collect())


@every_task
def test_task_does_its_example_and_ends_with_its_output(task: Task, warm: Warm) -> None:
    assert task.serves(warm)
    events = run(task, warm, dict(task.example))
    assert type(events[-1]) is task.output_type
    assert all(isinstance(event, Token) for event in events[:-1])
    assert task.streams or len(events) == 1
    json.loads(events[-1].model_dump_json())


@every_task
def test_streamed_pieces_joined_are_the_text(task: Task, warm: Warm) -> None:
    events = run(task, warm, dict(task.example))
    pieces = "".join(event.text for event in events[:-1] if isinstance(event, Token))
    assert pieces == (getattr(events[-1], "text", "") if task.streams else "")


@every_task
def test_unknown_field_is_refused(task: Task, warm: Warm) -> None:
    with pytest.raises(BadRequest, match="temprature"):
        run(task, warm, {**task.example, "temprature": 1})


@every_task
def test_task_is_found_by_its_name_and_described(task: Task, warm: Warm) -> None:
    assert type(get_task(task.name, warm)) is type(task)
    assert task.summary
    assert task.input_type.model_json_schema()["properties"]


def test_a_text_as_long_as_the_context_is_embedded_and_a_longer_one_is_told_both_lengths(
    warm: Warm,
) -> None:
    assert warm.tokenizer is not None
    text = "a b c d"
    length = len(warm.tokenizer(text)["input_ids"])
    task = get_task("embed", warm)
    run(task, replace(warm, context_tokens=length), {"texts": [text]})
    short = replace(warm, context_tokens=length - 1)
    with pytest.raises(ContextOverflow, match=rf"texts\.1: has {length} .* holds {length - 1}$"):
        run(task, short, {"texts": ["a", text]})


def test_tasks_can_be_described_without_torch() -> None:
    """The agent publishes their schemas and never loads a model."""
    program = (
        "import sys; from warmrack_workers.downstream import list_tasks;"
        "[task.input_type.model_json_schema() for task in list_tasks()];"
        "import warmrack_workers.host_process;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_encoder_offers_no_generation(encoder: Warm) -> None:
    assert {task.name for task in TASKS if task.serves(encoder)} == {"embed", "tokenize"}
    with pytest.raises(NotFound, match="embed, tokenize"):
        get_task("generate", encoder)


def test_embedding_has_length_one_and_does_not_depend_on_its_neighbours(encoder: Warm) -> None:
    embed = get_task("embed", encoder)
    together: Any = run(embed, encoder, {"texts": ["a fox", "a much longer text about dogs"]})[-1]
    alone: Any = run(embed, encoder, {"texts": ["a fox"]})[-1]
    assert together.vectors[0] == alone.vectors[0] != together.vectors[1]
    assert sum(x * x for x in alone.vectors[0]) == pytest.approx(1.0)


def test_seed_decides_a_sampled_text_and_none_is_drawn_anew(warm: Warm) -> None:
    generate = get_task("generate", warm)

    def sample(seed: int | None) -> str:
        payload = {"prompt": "fox", "max_tokens": 16, "temperature": 2.0, "seed": seed}
        return str(getattr(run(generate, warm, payload)[-1], "text", ""))

    assert sample(7) == sample(7)
    assert sample(None) != sample(None)


def test_stop_string_ends_the_text_before_it(warm: Warm) -> None:
    generate = get_task("generate", warm)
    payload = {"prompt": "fox", "max_tokens": 40}
    whole: Any = run(generate, warm, payload)[-1]
    stop = whole.text[10:13]
    cut: Any = run(generate, warm, {**payload, "stop": [stop]})[-1]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.usage.completion_tokens < 40


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_qwen", "tiny_gemma", "tiny_moe"])
@pytest.mark.parametrize("defaults", [{}, {"repetition_penalty": 1.3, "min_new_tokens": 20}])
def test_greedy_tokens_equal_generate_one_by_one(name: str, defaults: dict[str, Any]) -> None:
    """Whatever the repository says of sampling; its penalties and lengths count."""
    for warm in load_warm(name):
        warm.model.generation_config.update(
            **defaults, do_sample=True, temperature=0.3, top_k=2, top_p=0.5
        )
        ids = torch.tensor([[5, 70, 80, 90]])
        with torch.inference_mode():
            request = GenerationRequest(prompt=tuple(ids[0].tolist()), max_tokens=64)
            tokens = [token for token, _ in Sequence(warm.model, request).tokens()]
        expected = warm.model.generate(ids, do_sample=False, max_new_tokens=64)[0, 4:].tolist()
        assert tokens == expected


@pytest.mark.parametrize(
    ("prompt", "answer", "said"), [(10, 1, "leaves no room"), (9, 2, "exceed"), (11, 0, "11")]
)
def test_context_is_checked_to_the_token(prompt: int, answer: int, said: str) -> None:
    check_context(9, 1, 10)
    with pytest.raises(ContextOverflow, match=said):
        check_context(prompt, answer, 10)


TOKENIZER: Any = None


def tokenizer() -> Any:
    global TOKENIZER  # noqa: PLW0603  a fixture would be made anew by hypothesis
    if TOKENIZER is None:
        TOKENIZER = AutoTokenizer.from_pretrained(get_model_folder("tiny_llama"))
    return TOKENIZER


@settings(deadline=None, max_examples=150)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_of_whole_characters_streams_without_a_broken_one(text: str) -> None:
    stream = TextStream(tokenizer())
    pieces = [stream.push(token) for token in tokenizer()(text)["input_ids"]]
    assert "".join(pieces) + stream.finish() == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 383), max_size=60))
def test_any_tokens_stream_as_they_decode_in_one_go(tokens: list[int]) -> None:
    stream = TextStream(tokenizer())
    pieces = [stream.push(token) for token in tokens]
    whole = tokenizer().decode(tokens, skip_special_tokens=True)
    assert "".join(pieces) + stream.finish() == whole


@settings(deadline=None, max_examples=150)
@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_stop_strings_cut_where_the_first_one_begins(text: str, stop: list[str]) -> None:
    stream = TextStream(tokenizer(), tuple(stop))
    shown = ""
    for token in tokenizer()(text)["input_ids"]:
        shown += stream.push(token)
        if stream.stopped:
            break
    else:
        shown += stream.finish()
    starts = [text.find(each) for each in stop if each in text]
    if stream.stopped:
        assert not any(each in shown for each in stop)
        assert any(text.startswith(shown + each) for each in stop)
    else:
        assert not starts
        assert shown == text
