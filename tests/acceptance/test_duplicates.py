"""Two public repositories that hold the same files: one blob, one resident, a receipt each."""

from pathlib import Path

import pytest

import warmrack
from tests.acceptance.conftest import LLAMA, PRIVATE, TOKEN, TWIN, UNFETCHED_TWIN
from tests.acceptance.stack import Stack

pytestmark = pytest.mark.slow

NODE = ["node-0"]
WEIGHTS = "model.safetensors"


def blob(pool: Stack, repository: str) -> Path:
    folder = pool.cache_dir / f"models--{repository.replace('/', '--')}" / "snapshots"
    (snapshot,) = folder.iterdir()
    return (snapshot / WEIGHTS).resolve()


@pytest.fixture
def first(pool: Stack) -> warmrack.Job:
    with pool.client() as client:
        return client.wait(client.load(LLAMA, nodes=NODE).id, timeout_seconds=90)


@pytest.fixture
def second(pool: Stack, first: warmrack.Job) -> warmrack.Job:
    with pool.client() as client:
        return client.wait(client.load(TWIN, nodes=NODE).id, timeout_seconds=90)


def test_the_same_files_are_one_resident_and_one_blob(
    pool: Stack, first: warmrack.Job, second: warmrack.Job
) -> None:
    assert second.resident == first.resident
    assert blob(pool, TWIN).samefile(blob(pool, LLAMA))


def test_each_has_a_receipt_that_names_it(pool: Stack, second: warmrack.Job) -> None:
    with pool.client() as client:
        receipt = client.receipt(second.id)
    assert receipt.served.repository == TWIN
    assert receipt.identical
    assert TWIN in receipt.checks["E1"].detail


def test_a_private_repository_shares_neither(pool: Stack, first: warmrack.Job) -> None:
    with pool.client(hub_token=TOKEN) as client:
        job = client.wait(client.load(PRIVATE, nodes=NODE).id, timeout_seconds=90)
    assert job.resident != first.resident
    assert not blob(pool, PRIVATE).samefile(blob(pool, LLAMA))


def test_equivalent_is_served_by_what_lies_in_the_cache(pool: Stack, first: warmrack.Job) -> None:
    with pool.client() as client:
        job = client.load(UNFETCHED_TWIN, mode="equivalent", nodes=NODE)
        job = client.wait(job.id, timeout_seconds=90)
        receipt = client.receipt(job.id)
    assert job.resident == first.resident
    assert receipt.served.repository in (LLAMA, TWIN)
    assert "equivalent" in receipt.checks["E1"].detail
    assert receipt.identical
    assert not (pool.cache_dir / f"models--{UNFETCHED_TWIN.replace('/', '--')}").exists()
