"""The modes from outside: who stands in for whom, by the Hub's tags, the catalog and the pool."""

from collections.abc import Iterator

import pytest

import warmrack
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Served, running_hub
from tests.hub.models import get_model_folder
from warmrack_store.errors import NoVariant

pytestmark = pytest.mark.slow

ASKED = "meta-llama/Llama-3.2-1B-Instruct"
UNSLOTH = "unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit"
CHILD = "quants/Llama-3.2-1B-Instruct-bnb-4bit"
WRONG = "quants/Llama-3.2-1B-Instruct-other"
CARD = f"---\nbase_model: {ASKED}\nbase_model_relation: quantized\n---\n".encode()


@pytest.fixture(scope="module")
def pool() -> Iterator[Stack]:
    """Tiny models under the names of large ones, on a pool of its own."""
    quantized = get_model_folder("tiny_llama_nf4")
    repositories = {
        ASKED: Served(folder=get_model_folder("tiny_llama")),
        UNSLOTH: Served(folder=quantized),
        CHILD: Served(folder=quantized),
        WRONG: Served(folder=get_model_folder("tiny_qwen")),
    }
    with running_hub(repositories) as hub:
        for child in (CHILD, WRONG):
            hub.add_commit(child, files={"README.md": CARD})
        with running_stack(hub) as stack:
            yield stack


def load(pool: Stack, **request: object) -> tuple[warmrack.Job, warmrack.Receipt]:
    with pool.client() as client:
        job = client.load(ASKED, **request)  # type: ignore[arg-type]
        job = client.wait(job.id, timeout_seconds=120)
        return job, client.receipt(job.id)


def test_exact_moves_nothing_and_quantizes_nothing(pool: Stack) -> None:
    _, receipt = load(pool)
    assert (receipt.served.repository, receipt.identical) == (ASKED, True)
    assert receipt.served.precision == "fp32"


def test_optimized_serves_the_child_that_the_hub_names_and_the_request_allows(pool: Stack) -> None:
    job, receipt = load(pool, mode="optimized", publishers=["quants"])
    assert (receipt.served.repository, receipt.served.precision) == (CHILD, "nf4")
    assert "stands in" in receipt.checks["E1"].detail
    assert not receipt.identical
    assert all(check.passed for check in receipt.checks.values())
    assert job.resolution is not None
    assert job.resolution.substitution == "quantized"


def test_the_wrong_child_and_the_stranger_are_rejected_with_their_reasons(pool: Stack) -> None:
    with pool.client() as client:
        found = client.explain(ASKED, mode="optimized", publishers=["quants"])
    codes = {one.repository: one.code for one in found.rejected}
    assert codes[WRONG] == "lineage-mismatch"
    assert codes[UNSLOTH] == "publisher-not-allowed"


def test_optimized_without_a_publisher_quantizes_the_model_itself(pool: Stack) -> None:
    _, receipt = load(pool, mode="optimized")
    assert (receipt.served.repository, receipt.served.precision) == (ASKED, "nf4")
    assert not receipt.identical


def test_no_variant_names_each_candidate(pool: Stack) -> None:
    request = {"mode": "optimized", "precision": "int8", "quantize": "prequantized"}
    with pool.client() as client, pytest.raises(NoVariant, match=ASKED):
        client.explain(ASKED, **request)


def test_compat_loads_what_unsloth_would_and_explain_says_so(pool: Stack) -> None:
    _, receipt = load(pool, mode="compat:unsloth")
    assert receipt.served.repository == UNSLOTH
    code, found = pool.run_json("explain", ASKED, "--vs", "unsloth")
    assert code == 0
    assert UNSLOTH in found["vs_unsloth"]["line"]


def test_auto_is_exact_where_it_fits(pool: Stack) -> None:
    _, receipt = load(pool, mode="auto", publishers=["*"])
    assert (receipt.served.repository, receipt.identical) == (ASKED, True)
