"""The main job from outside: load, prove, use, join, unload, by every way in."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import warmrack
from tests.acceptance.conftest import BERT, LLAMA, SHARDED
from tests.acceptance.stack import Stack
from tests.hub.models import get_model_folder

_ABANDONED = 60
CHECKS = {f"E{number}" for number in range(1, 9)}


@pytest.fixture
def loaded(pool: Stack) -> warmrack.Job:
    with pool.client() as client:
        return client.wait(client.load(LLAMA).id, timeout_seconds=90)


def test_load_ends_with_a_receipt_at_level_loaded(pool: Stack, loaded: warmrack.Job) -> None:
    code, receipt = pool.run_json("receipt", loaded.id)
    assert code == 0
    assert receipt["level"] == "loaded"
    assert receipt["identical"] is True
    assert {name for name, check in receipt["checks"].items() if check["passed"]} == CHECKS
    assert receipt["served"]["commit"] == pool.hub.get_commit(LLAMA).sha
    assert receipt["tensor_root"]


def test_job_tells_its_way_in_events(pool: Stack, loaded: warmrack.Job) -> None:
    with pool.client() as client:
        types = [event.type for event in client.events(loaded.id)]
    moves = [name for name in types if name != "progress"]
    assert moves[0] == "queued"
    assert moves[-1] == "succeeded"
    assert moves.index("resolving") < moves.index("fetching") < moves.index("loading")


def test_second_load_joins_the_warm_model_without_a_new_resident(
    pool: Stack, loaded: warmrack.Job
) -> None:
    with pool.client() as client:
        again = client.wait(client.load(LLAMA).id, timeout_seconds=30)
    assert again.resident == loaded.resident
    assert again.id != loaded.id


def test_another_spelling_shares_the_resident_and_has_a_receipt_of_its_own(
    pool: Stack, loaded: warmrack.Job
) -> None:
    commit = pool.hub.get_commit(LLAMA).sha
    with pool.client() as client:
        pinned = client.wait(client.load(f"hf://{LLAMA}@{commit}").id, timeout_seconds=30)
        receipt = client.receipt(pinned.id)
    assert pinned.resident == loaded.resident
    assert receipt.asked == f"hf://{LLAMA}@{commit}"


def test_run_streams_exactly_what_transformers_would_say(pool: Stack, loaded: warmrack.Job) -> None:
    payload = {"prompt": "The quick brown fox", "max_tokens": 64}
    with pool.client() as client:
        pieces = list(client.stream_task(LLAMA, "generate", payload))
    served = pieces[-1].result["text"]  # type: ignore[union-attr]
    assert "".join(piece.text for piece in pieces[:-1]) == served  # type: ignore[union-attr]
    assert served == _generate_in_process(get_model_folder("tiny_llama"), "The quick brown fox")


def _generate_in_process(folder: Path, prompt: str) -> str:
    """In an interpreter of its own, so that this one stays free of torch."""
    code = (
        "import sys, transformers as t\n"
        "model = t.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype='auto')\n"
        "tok = t.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "ids = tok(sys.argv[2], return_tensors='pt')\n"
        "out = model.generate(**ids, max_new_tokens=64, do_sample=False)\n"
        "new = out[0, ids['input_ids'].shape[1]:]\n"
        "sys.stdout.buffer.write(tok.decode(new, skip_special_tokens=True).encode())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder), prompt]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    return done.stdout.decode()


def test_task_job_keeps_its_result(pool: Stack) -> None:
    with pool.client() as client:
        job = client.task(LLAMA, "generate", {"prompt": "Once", "max_tokens": 4})
        done = client.wait(job.id, timeout_seconds=90)
    assert done.result["usage"]["completion_tokens"] == 4
    assert done.result["receipt"] == done.receipt


def test_prefetch_ends_at_the_disk_with_a_receipt_at_level_files(pool: Stack) -> None:
    code, job = pool.run_json("prefetch", SHARDED)
    assert code == 0
    assert job["resident"] is None
    code, receipt = pool.run_json("receipt", job["id"])
    assert receipt["level"] == "files"
    code, listing = pool.run_json("cache", "ls")
    assert SHARDED in json.dumps(listing)


def test_stock_transformers_loads_offline_from_our_cache(pool: Stack) -> None:
    with pool.client() as client:
        client.wait(client.prefetch(SHARDED, nodes="node-0").id, timeout_seconds=60)
    code = (
        "import sys, transformers as t\n"
        "model = t.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype='auto')\n"
        "t.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "print(sum(p.numel() for p in model.parameters()))\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(pool.cache_dir)}
    command = [sys.executable, "-W", "ignore", "-c", code, SHARDED]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_explain_downloads_nothing_and_names_the_devices(pool: Stack) -> None:
    pool.hub.reset_counts()
    code, explained = pool.run_json("explain", BERT)
    assert code == 0
    assert explained["commit"] == pool.hub.get_commit(BERT).sha
    assert [line["rule"] for line in explained["trail"]] == [f"R{n}" for n in range(10)]
    assert {row["node"] for row in explained["devices"]} == {"node-0", "node-1"}
    weights = pool.hub.read_counts().file_bytes(repository=BERT, file="model.safetensors")
    assert weights < 110_000  # the header's ranged read, never the weights


def test_unload_gives_the_memory_back(pool: Stack, loaded: warmrack.Job) -> None:
    done = pool.run("unload", LLAMA)
    assert done.returncode == 0, done.stderr
    with pool.client() as client:
        assert LLAMA not in {resident.model for resident in client.residents()}


def test_cold_run_loads_the_model_first(pool: Stack) -> None:
    pool.run("unload", LLAMA)
    done = pool.run("run", LLAMA, "Hello", "--max-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_async_client_does_the_same(pool: Stack) -> None:
    import asyncio

    async def load() -> str:
        async with warmrack.AsyncClient(pool.url) as client:
            job = await client.load(LLAMA)
            done = await client.wait(job.id, timeout_seconds=90)
            return str(done.state)

    assert asyncio.run(load()) == "succeeded"


def test_foreign_celery_app_submits_by_send_task(pool: Stack) -> None:
    from celery import Celery

    broker = pool.ready["broker_url"]
    app = Celery(broker=broker, backend=broker, set_as_current=False)
    body = {"request": {"model": LLAMA}}
    try:
        job_id = app.send_task("warmrack.load", kwargs=body, queue="warmrack").get(timeout=30)
        with pool.client() as client:
            assert client.wait(job_id, timeout_seconds=90).state == "succeeded"
        waited = app.send_task("warmrack.load", kwargs={**body, "wait": True}, queue="warmrack")
        assert waited.get(timeout=60)["state"] == "succeeded"
    finally:
        app.close()


def test_abandoned_answers_that_are_not_streamed_leave_the_host_to_others(
    pool: Stack, loaded: warmrack.Job
) -> None:
    body = {"model": LLAMA, "payload": {"prompt": "x", "max_tokens": 480}}
    url = f"{pool.url}/api/v1/tasks/generate"
    begun = time.monotonic()
    assert httpx.post(url, json=body, timeout=120).status_code == 200
    one_seconds = time.monotonic() - begun

    limits = httpx.Limits(max_connections=None)
    with httpx.Client(timeout=httpx.Timeout(120, read=0.1), limits=limits) as http:

        def abandon(_number: int) -> None:
            with pytest.raises(httpx.ReadTimeout):
                http.post(url, json=body)

        with ThreadPoolExecutor(_ABANDONED) as callers:
            list(callers.map(abandon, range(_ABANDONED)))
    begun = time.monotonic()
    assert httpx.post(url, json=body, timeout=120).status_code == 200
    assert time.monotonic() - begun < _ABANDONED * one_seconds / 4
