"""One host from its start to its end, over its socket."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.services.hosts import (
    await_state,
    connect,
    flip_last_byte,
    make_endless,
    make_snapshot,
    make_spec,
    read_events,
    replace_bytes,
    runtime_folder,
)
from warmrack_workers.host_process import Nursery, spawn
from warmrack_workers.host_spec import HostSpec, write_spec
from warmrack_workers.processes import ProcessIdentity, is_alive, kill, wait_end

PROMPT = "the quick brown fox"
Start = Callable[[HostSpec, Path], ProcessIdentity]
SSE = {"accept": "text/event-stream"}
ENDLESS = {"prompt": PROMPT, "max_tokens": 100_000}
"""Left alone this generation would take minutes."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More of them only wait for one another on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with runtime_folder() as folder:
        nursery = Nursery(folder / "nursery.log")
        nursery.start()
        assert nursery.wait_ready(120), (folder / "nursery.log").read_text()
        yield nursery
        nursery.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    spec: HostSpec
    identity: ProcessIdentity
    client: httpx.Client

    def await_end(self, seconds: float = 20.0) -> bool:
        return wait_end(self.identity, seconds)


@contextmanager
def running(start: Start, spec: HostSpec) -> Iterator[Running]:
    identity = start(spec, spec.socket_path.with_suffix(".json"))
    try:
        with connect(spec) as client:
            yield Running(spec=spec, identity=identity, client=client)
    finally:
        kill(identity)
        assert wait_end(identity, 10)


def start_spawned(spec: HostSpec, path: Path) -> ProcessIdentity:
    write_spec(spec, path)
    return spawn(spec, path)


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime_folder() as folder:
        yield folder


@pytest.fixture
def llama(folder: Path) -> HostSpec:
    return make_spec(make_snapshot("tiny_llama", folder / "cache"), folder)


@pytest.fixture
def endless(folder: Path) -> HostSpec:
    return make_spec(make_endless(folder), folder, context_tokens=1_000_000)


def test_forked_host_loads_proves_and_says_who_it_is(nursery: Nursery, llama: HostSpec) -> None:
    with running(nursery.launch, llama) as host:
        status = await_state(host.client, "warm", "gone")
        assert status["state"] == "warm", status["error"]
        assert status["receipt"]["level"] == "loaded"
        assert all(check["passed"] for check in status["receipt"]["checks"].values())
        assert (status["pid"], status["start_time"]) == (
            host.identity.pid,
            host.identity.start_time,
        )
        assert (
            status["bytes"]
            >= sum(file.size_bytes for file in llama.files if file.path == "model.safetensors")
            - 10_000
        )
        assert status["timings"].keys() >= {"load_seconds", "audit_seconds"}


@pytest.mark.parametrize("way", ["forked", "spawned"])
def test_served_tokens_and_logits_equal_from_pretrained(
    nursery: Nursery, folder: Path, way: str
) -> None:
    spec = make_spec(make_snapshot("tiny_qwen", folder / "cache"), folder)
    with running(nursery.launch if way == "forked" else start_spawned, spec) as host:
        await_state(host.client, "warm")
        generated = host.client.post(
            "/tasks/generate", json={"prompt": PROMPT, "max_tokens": 64}
        ).json()
        forward = host.client.post("/tasks/forward", json={"prompt": PROMPT}).json()
    text, logits = _in_process(spec.snapshot_dir)
    assert generated["usage"]["completion_tokens"] == 64
    assert generated["text"] == text
    assert forward["logits"] == logits


def _in_process(snapshot: Path) -> tuple[str, list[float]]:
    """64 greedy tokens as text, and the logits after the prompt."""
    tokenizer: Any = AutoTokenizer.from_pretrained(snapshot)
    model: Any = AutoModelForCausalLM.from_pretrained(snapshot)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = model(ids).logits[0, -1].tolist()
        tokens = model.generate(ids, do_sample=False, max_new_tokens=64)[0, ids.shape[1] :]
    return tokenizer.decode(tokens, skip_special_tokens=True), logits


def test_weights_stay_a_map_of_the_cached_file(nursery: Nursery, llama: HostSpec) -> None:
    with running(nursery.launch, llama) as host:
        await_state(host.client, "warm")
        blob = str((llama.snapshot_dir / "model.safetensors").resolve())
        maps = Path(f"/proc/{host.identity.pid}/maps").read_text()
        assert blob in maps


def test_stream_gives_the_same_text_in_pieces(nursery: Nursery, llama: HostSpec) -> None:
    payload = {"prompt": PROMPT, "max_tokens": 24}
    with running(nursery.launch, llama) as host:
        await_state(host.client, "warm")
        whole = host.client.post("/tasks/generate", json=payload).json()
        with host.client.stream("POST", "/tasks/generate", json=payload, headers=SSE) as response:
            events = list(read_events(response))
    assert [name for name, _ in events[:-1]] == ["token"] * (len(events) - 1)
    assert events[-1] == ("done", whole)
    assert "".join(data["text"] for _, data in events[:-1]) == whole["text"]


def test_chat_answers_through_the_models_template(nursery: Nursery, llama: HostSpec) -> None:
    messages = [{"role": "user", "content": "hello"}]
    tokenizer: Any = AutoTokenizer.from_pretrained(llama.snapshot_dir)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    with running(nursery.launch, llama) as host:
        await_state(host.client, "warm")
        chat = host.client.post("/tasks/chat", json={"messages": messages, "max_tokens": 8})
        generate = host.client.post("/tasks/generate", json={"prompt": prompt, "max_tokens": 8})
    assert chat.json() == generate.json()


@pytest.mark.parametrize(
    ("max_tokens", "prompt", "said"),
    [(300, PROMPT, "max_tokens 300"), (1, "fox " * 300, "leaves no room")],
)
def test_too_long_a_request_is_a_context_overflow_with_numbers(
    nursery: Nursery, llama: HostSpec, max_tokens: int, prompt: str, said: str
) -> None:
    with running(nursery.launch, llama) as host:
        await_state(host.client, "warm")
        answer = host.client.post(
            "/tasks/generate", json={"prompt": prompt, "max_tokens": max_tokens}, headers=SSE
        )
        status = host.client.get("/status").json()
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "context-overflow"
    assert said in answer.json()["detail"]
    assert str(llama.context_tokens) in answer.json()["detail"]
    assert status["in_flight"] == 0


def _add_field(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "attention_dropout": 0.5}).encode()


@pytest.mark.parametrize(
    ("path", "change", "quietly", "named"),
    [
        ("model.safetensors", flip_last_byte, True, "E6: model.norm.weight"),
        ("model.safetensors", flip_last_byte, False, "E2: model.safetensors"),
        ("config.json", _add_field, True, "E2: config.json"),
        ("tokenizer.json", lambda data: data + b"\n", True, "E2: tokenizer.json"),
    ],
)
def test_bytes_changed_after_verification_are_never_served(
    nursery: Nursery,
    llama: HostSpec,
    path: str,
    change: Callable[[bytes], bytes],
    quietly: bool,
    named: str,
) -> None:
    replace_bytes(llama.snapshot_dir / path, change, quietly=quietly)
    with running(nursery.launch, llama) as host:
        await_refusal(host, "integrity", named)


def test_missing_file_is_an_integrity_error(nursery: Nursery, llama: HostSpec) -> None:
    (llama.snapshot_dir / "generation_config.json").unlink()
    with running(nursery.launch, llama) as host:
        await_refusal(host, "integrity", "generation_config.json is missing")


def test_tensor_that_the_load_casts_is_not_exact(nursery: Nursery, folder: Path) -> None:
    spec = make_spec(_store_mixed(folder), folder)
    assert spec.resolution.precision == "mixed"
    with running(nursery.launch, spec) as host:
        await_refusal(host, "not-exact", "model.norm.weight is F32, stored as BF16")


def test_dtype_named_in_the_config_does_not_cast_the_stored_one(
    nursery: Nursery, folder: Path
) -> None:
    snapshot = make_snapshot("tiny_llama", folder / "cache")
    replace_bytes(
        snapshot / "config.json",
        lambda data: json.dumps({**json.loads(data), "dtype": "bfloat16"}).encode(),
        quietly=False,
    )
    with running(nursery.launch, make_spec(snapshot, folder)) as host:
        status = await_state(host.client, "warm", "gone")
    assert status["state"] == "warm", status["error"]


def _store_mixed(folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    snapshot = make_snapshot("tiny_llama", folder / "cache")
    weights = (snapshot / "model.safetensors").resolve()
    tensors = load_file(weights)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.bfloat16)
    weights.unlink()
    save_file(tensors, weights, metadata={"format": "pt"})
    return snapshot


def await_refusal(host: Running, code: str, named: str) -> None:
    """The load fails with this error, no task is served, and the host ends once it was read."""
    early = host.client.post("/tasks/generate", json={"prompt": PROMPT})
    assert early.status_code == 503
    assert early.json()["code"] == "model-cold"
    status = await_state(host.client, "warm", "gone")
    assert status["state"] == "gone"
    assert status["error"]["code"] == code
    assert named in status["error"]["message"]
    assert host.await_end()


@pytest.mark.slow
def test_host_outlives_its_nursery(llama: HostSpec, folder: Path) -> None:
    nursery = Nursery(folder / "nursery.log")
    assert nursery.wait_ready(120)
    with running(nursery.launch, llama) as host:
        await_state(host.client, "warm")
        pid = nursery.pid
        assert pid is not None
        nursery.stop()
        assert not Path(f"/proc/{pid}").exists()
        answer = host.client.post("/tasks/generate", json={"prompt": PROMPT, "max_tokens": 4})
        assert answer.status_code == 200


def test_killed_host_is_seen_as_dead(nursery: Nursery, llama: HostSpec) -> None:
    with running(nursery.launch, llama) as host:
        await_state(host.client, "warm")
        assert is_alive(host.identity)
        assert kill(host.identity)
        assert host.await_end()
        assert not is_alive(host.identity)
        assert not kill(host.identity)
        with socket.socket(socket.AF_UNIX) as probe, pytest.raises(ConnectionRefusedError):
            probe.connect(str(llama.socket_path))


def test_host_that_is_told_to_terminate_ends_at_once(nursery: Nursery, endless: HostSpec) -> None:
    with running(nursery.launch, endless) as host:
        await_state(host.client, "warm")
        with host.client.stream("POST", "/tasks/generate", json=ENDLESS, headers=SSE) as response:
            events = read_events(response)
            assert next(events)[0] == "token"
            assert kill(host.identity, signal.SIGTERM)
            assert host.await_end(5)


def test_drain_lets_a_running_stream_end_and_takes_nothing_new(
    nursery: Nursery, endless: HostSpec
) -> None:
    payload = {"prompt": PROMPT, "max_tokens": 300}
    with running(nursery.launch, endless) as host, connect(endless) as other:
        await_state(host.client, "warm")
        with host.client.stream("POST", "/tasks/generate", json=payload, headers=SSE) as response:
            events = read_events(response)
            assert next(events)[0] == "token"
            assert other.post("/drain", json={}).json() == {"draining": True}
            refused = other.post("/tasks/generate", json=payload)
            status = other.get("/status").json()
            last = list(events)[-1]
        assert refused.status_code == 503
        assert refused.json()["code"] == "model-cold"
        assert (status["state"], status["in_flight"]) == ("draining", 1)
        assert last[0] == "done"
        assert last[1]["usage"]["completion_tokens"] == 300
        assert host.await_end()
    assert not endless.socket_path.exists()


def test_drain_is_refused_while_not_idle_for_long_enough(nursery: Nursery, llama: HostSpec) -> None:
    with running(nursery.launch, llama) as host:
        await_state(host.client, "warm")
        assert host.client.post("/drain", json={"idle_seconds": 60}).json() == {"draining": False}
        assert host.client.get("/status").json()["state"] == "warm"
        assert host.client.post("/drain", json={"idle_seconds": 1e-6}).json() == {"draining": True}
        assert host.await_end()


def test_client_that_leaves_its_stream_frees_its_place(nursery: Nursery, endless: HostSpec) -> None:
    with running(nursery.launch, endless) as host:
        await_state(host.client, "warm")
        with (
            connect(endless) as client,
            client.stream("POST", "/tasks/generate", json=ENDLESS, headers=SSE) as response,
        ):
            assert next(read_events(response))[0] == "token"
        await_free(host)


def test_client_that_stops_waiting_for_its_answer_frees_its_place(
    nursery: Nursery, endless: HostSpec
) -> None:
    with running(nursery.launch, endless) as host:
        await_state(host.client, "warm")
        with connect(endless, timeout_seconds=0.5) as client, pytest.raises(httpx.ReadTimeout):
            client.post("/tasks/generate", json=ENDLESS)
        await_free(host)


def await_free(host: Running) -> None:
    """The next request is served, and nothing is left that a drain would have to wait for."""
    payload = {"prompt": PROMPT, "max_tokens": 2}
    assert host.client.post("/tasks/generate", json=payload).status_code == 200
    assert host.client.get("/status").json()["in_flight"] == 0
    assert host.client.post("/drain", json={}).json() == {"draining": True}
    assert host.await_end()


def test_requests_take_turns_and_all_are_answered(nursery: Nursery, endless: HostSpec) -> None:
    answers: list[int] = []

    def ask() -> None:
        with connect(endless) as client:
            answer = client.post("/tasks/generate", json={"prompt": PROMPT, "max_tokens": 20})
            answers.append(answer.json()["usage"]["completion_tokens"])

    with running(nursery.launch, endless) as host:
        await_state(host.client, "warm")
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert answers == [20] * 4


def test_status_waits_for_the_next_state(nursery: Nursery, endless: HostSpec) -> None:
    """A stream keeps the host draining, however late the waiting request comes."""
    answers: list[str] = []

    def wait() -> None:
        with connect(endless) as client:
            query = {"after": "warm", "wait": "30"}
            answers.append(client.get("/status", params=query).json()["state"])

    with running(nursery.launch, endless) as host, connect(endless) as other:
        await_state(host.client, "warm")
        with host.client.stream("POST", "/tasks/generate", json=ENDLESS, headers=SSE) as response:
            events = read_events(response)
            assert next(events)[0] == "token"
            waiter = threading.Thread(target=wait)
            waiter.start()
            assert other.get("/status?after=warm&wait=0.05").json()["state"] == "warm"
            other.post("/drain", json={})
            waiter.join(30)
    assert answers == ["draining"]


def test_second_host_on_one_socket_does_not_serve(nursery: Nursery, llama: HostSpec) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(running(nursery.launch, llama))
        await_state(first.client, "warm")
        second = nursery.fork(llama.socket_path.with_suffix(".json"))
        assert wait_end(second, 20)
        assert first.client.get("/status").json()["pid"] == first.identity.pid


def test_tasks_are_listed_with_their_schemas(nursery: Nursery, llama: HostSpec) -> None:
    with running(nursery.launch, llama) as host:
        await_state(host.client, "warm")
        tasks = {task["name"]: task for task in host.client.get("/tasks").json()}
        unknown = host.client.post("/tasks/paint", json={})
        wrong = host.client.post("/tasks/generate", json={"prompt": PROMPT, "max_tokens": 0})
    assert tasks["generate"]["input"]["required"] == ["prompt"]
    assert tasks["generate"]["streams"]
    assert (unknown.status_code, unknown.json()["code"]) == (404, "task-not-found")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "bad-request")


def test_host_keeps_nothing_of_its_nursery_open(nursery: Nursery, llama: HostSpec) -> None:
    with running(nursery.launch, llama) as host:
        await_state(host.client, "warm")
        nursery_pipes = _pipes(nursery.pid)
        assert nursery_pipes
        assert not _pipes(host.identity.pid) & nursery_pipes
        assert os.getsid(host.identity.pid) == host.identity.pid


def _pipes(pid: int | None) -> set[str]:
    links = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return {link for link in links if link.startswith("pipe:")}
