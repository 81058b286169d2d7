"""Each code that a resolution can end with, provoked from the command line and over HTTP."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub, Served, running_hub
from tests.hub.faults import Status
from tests.hub.models import get_model_folder
from warmrack_store import errors

PLAIN = "org/plain"
QUANTIZED = "org/plain-bnb-4bit"
REMOTE_CODE = "org/remote-code"
BOTH = "org/both-kinds"
PICKLE = "org/pickle"
GATED = "org/gated"
ADAPTER = "org/adapter"
LLAMA = "meta-llama/Llama-3.2-1B-Instruct"
WRONG_MIRROR = "unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit"
LOCAL_BASE = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj"],
    "base_model_name_or_path": "/data/llama",
}
BAD_TOKEN = "hf_nobody_knows_this_one"
CARD = f"---\nbase_model: {PLAIN}\nbase_model_relation: quantized\n---\n".encode()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    plain = get_model_folder("tiny_llama")
    config = json.loads((plain / "config.json").read_text())
    own_code = {**config, "auto_map": {"AutoModelForCausalLM": "modeling.Model"}}
    repositories = {
        PLAIN: Served(folder=plain),
        QUANTIZED: Served(folder=get_model_folder("tiny_llama_nf4")),
        REMOTE_CODE: Served(folder=plain),
        BOTH: Served(folder=plain),
        PICKLE: Served(folder=get_model_folder("pickle_only")),
        GATED: Served(folder=plain, gated=True),
        ADAPTER: Served(folder=plain),
        LLAMA: Served(folder=plain),
        WRONG_MIRROR: Served(folder=get_model_folder("tiny_qwen")),
    }
    with running_hub(repositories) as running:
        running.add_commit(QUANTIZED, files={"README.md": CARD})
        running.add_commit(REMOTE_CODE, files={"config.json": json.dumps(own_code).encode()})
        running.add_commit(BOTH, files={"adapter_config.json": b"{}"})
        running.add_commit(
            ADAPTER,
            files={
                "adapter_config.json": json.dumps(LOCAL_BASE).encode(),
                "adapter_model.safetensors": save({"lora": np.zeros(1)}),
            },
            removed=["model.safetensors", "config.json"],
        )
        yield running


@pytest.fixture(scope="module")
def pool(hub: Hub) -> Iterator[Stack]:
    with running_stack(hub) as stack:
        yield stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The same request twice; `options` are the command line's, `fields` the body's."""

    error: type[errors.WarmrackError]
    model: str = PLAIN
    options: tuple[str, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    token: str = ""


CASES = (
    Case(error=errors.BadRequest, options=("--precision", "bf17"), fields={"precision": "bf17"}),
    Case(error=errors.BadRequest, model="no-slash"),
    Case(
        error=errors.Contradiction,
        options=("--quantize", "any"),
        fields={"mode": "exact", "quantize": "any"},
    ),
    Case(error=errors.Contradiction, options=("--precision", "nf4"), fields={"precision": "nf4"}),
    Case(
        error=errors.Contradiction,
        options=("--mode", "exact", "--unsloth-args", "load_in_4bit=True"),
        fields={"mode": "exact", "precision": "nf4"},
    ),
    Case(error=errors.RepoNotFound, model="org/nothing"),
    Case(error=errors.RevisionNotFound, options=("--revision", "v9"), fields={"revision": "v9"}),
    Case(error=errors.Gated, model=GATED),
    Case(error=errors.Unauthorized, model=GATED, token=BAD_TOKEN),
    Case(error=errors.UnsafeFormat, model=PICKLE),
    Case(error=errors.RemoteCode, model=REMOTE_CODE),
    Case(error=errors.BothKinds, model=BOTH),
    Case(
        error=errors.RevisionDoesNotApply,
        options=(
            *("--mode", "optimized", "--precision", "nf4", "--quantize", "prequantized"),
            *("--revision", "main"),
        ),
        fields={
            "mode": "optimized",
            "precision": "nf4",
            "quantize": "prequantized",
            "revision": "main",
        },
    ),
    Case(
        error=errors.NoVariant,
        options=("--mode", "optimized", "--precision", "int8", "--quantize", "prequantized"),
        fields={"mode": "optimized", "precision": "int8", "quantize": "prequantized"},
    ),
    Case(
        error=errors.LineageMismatch,
        model=LLAMA,
        options=("--mode", "compat:unsloth"),
        fields={"mode": "compat:unsloth"},
    ),
    Case(
        error=errors.QuantMismatch,
        model=QUANTIZED,
        options=("--precision", "bf16"),
        fields={"precision": "bf16"},
    ),
    Case(
        error=errors.DeviceUnsupported,
        options=("--mode", "optimized", "--precision", "fp8", "--quantize", "on_the_fly"),
        fields={"mode": "optimized", "precision": "fp8", "quantize": "on_the_fly"},
    ),
    Case(
        error=errors.OfflineMiss,
        model="org/never-asked",
        options=("--network", "offline"),
        fields={"network": "offline"},
    ),
    Case(error=errors.AdapterBaseUnresolved, model=ADAPTER),
)
TRANSIENT = ((503, errors.HubUnavailable), (429, errors.RateLimited))
OVER_HTTP: tuple[tuple[dict[str, Any], type[errors.WarmrackError]], ...] = (
    ({"attn": "sdpa"}, errors.NotSupported),
    ({"max_memory_bytes": 1000}, errors.WontFit),
    ({"max_download_bytes": 10}, errors.WontFit),
    ({"lock": "require"}, errors.LockMismatch),
)
PROVOKED: set[type[errors.WarmrackError]] = {case.error for case in CASES} | {
    error for _, error in (*TRANSIENT, *OVER_HTTP)
}
"""The rest is in test_job_error_codes."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.error.code)
def test_code_comes_with_a_hint_from_the_command_line(pool: Stack, case: Case) -> None:
    settings = {"WARMRACK_HUB_TOKEN": case.token} if case.token else {}
    exit_code, answer = pool.run_json("explain", case.model, *case.options, **settings)
    assert answer["error"]["code"] == case.error.code
    assert exit_code == case.error.exit_code
    assert answer["error"]["message"]
    assert answer["error"]["hint"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.error.code)
def test_code_comes_as_a_problem_document_over_http(pool: Stack, case: Case) -> None:
    answer = explain(pool, case.model, case.fields, case.token)
    problem = answer.json()
    assert problem["code"] == case.error.code
    assert answer.status_code == case.error.status
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert problem["detail"]
    assert problem["hint"]


@pytest.mark.parametrize(("fields", "error"), OVER_HTTP)
def test_fields_without_an_option_are_refused_over_http(
    pool: Stack, fields: dict[str, Any], error: type[errors.WarmrackError]
) -> None:
    answer = explain(pool, PLAIN, fields, "")
    assert (answer.status_code, answer.json()["code"]) == (error.status, error.code)


@pytest.mark.parametrize(("status", "error"), TRANSIENT)
def test_hub_that_cannot_answer_is_transient(
    pool: Stack, status: int, error: type[errors.WarmrackError]
) -> None:
    # The last of this module: after a 429 the whole pool leaves the Hub alone for a while.
    number = pool.hub.add_fault(Status(status=status), path="/api/models/org/plain")
    try:
        exit_code, answer = pool.run_json("explain", PLAIN)
        over_http = explain(pool, PLAIN, {}, "")
    finally:
        pool.hub.clear_faults(number)
    assert (exit_code, answer["error"]["code"]) == (4, error.code)
    assert (over_http.status_code, over_http.json()["code"]) == (error.status, error.code)
    assert over_http.json()["retryable"] is True


def explain(pool: Stack, model: str, fields: dict[str, Any], token: str) -> httpx.Response:
    headers = {"X-Hub-Token": token} if token else {}
    body = {"model": model, **fields}
    return httpx.post(f"{pool.url}/api/v1/explain", json=body, headers=headers, timeout=60)
