"""Receipts over HTTP: shown by either id, signed, checked again by real nodes, or refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services.hosts import (
    COMMIT,
    flip_last_byte,
    make_snapshot,
    make_spec,
    replace_bytes,
    runtime_folder,
)
from tests.services.hub_rights import note_public
from tests.services.submitted import claimed
from tests.services.test_api import is_problem, post_job, serving
from warmrack_daemon.services import Services
from warmrack_store.attestation import verify_statement
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.envelopes import PublicKey, read_envelope
from warmrack_store.ledgers import claims, copies, leases, nodes, receipts, resolutions
from warmrack_store.machine import machine_id
from warmrack_store.rechecks import DiskQuestion
from warmrack_store.records import parse_record
from warmrack_store.states import JobState, NodeState
from warmrack_store.vault import Vault
from warmrack_workers.disk_checks import DiskChecks
from warmrack_workers.file_receipts import receipt_of
from warmrack_workers.ingress import Ingress
from warmrack_workers.node_server import SEAT, NodeServer

REPOSITORY = "tests/tiny"
WEIGHTS = "model.safetensors"


class Pool:
    """A control plane, and one node that holds what a prefetch brought there."""

    def __init__(self, services: Services, api: httpx.Client, folder: Path) -> None:
        self.services = services
        self.api = api
        self.layout = RepositoryLayout(cache_dir=folder / "cache", repository=REPOSITORY)
        self.snapshot = make_snapshot("tiny_llama", self.layout.folder)
        spec = make_spec(self.snapshot, folder)
        self.checks = DiskChecks(
            database=services.database, cache_dir=folder / "cache", node="n0", store="s0"
        )
        note_public(services.rights, REPOSITORY)
        self.job_id = post_job(api)["id"]
        held = claimed(services.database)
        with services.database.write() as tx:
            resolution_id = resolutions.put_resolution(tx, spec.resolution)
            receipt = receipt_of(spec.resolution, spec.files)
            self.receipt_id = receipts.insert_receipt(tx, resolution_id, receipt)
            copies.put_copy(
                tx,
                store="s0",
                repository=REPOSITORY,
                commit=COMMIT,
                selection=spec.resolution.selection,
                complete=True,
            )
            claims.finish(tx, held, JobState.SUCCEEDED, receipt_id=self.receipt_id)

    def register(self, url: str) -> None:
        with self.services.database.write() as tx:
            nodes.register(
                tx,
                "n0",
                url=url,
                mirror_url=None,
                machine=machine_id(),
                store="s0",
                devices=[],
                labels={},
                tasks={},
                versions={},
                pid=1,
            )

    def answer(self, question: object) -> Any:
        return self.checks.check(parse_record(DiskQuestion, question).resolution_id)

    def verify(self) -> httpx.Response:
        return self.api.post(f"/api/v1/jobs/{self.job_id}/receipt/verify")


@pytest.fixture
def pool(services: Services) -> Iterator[Pool]:
    with runtime_folder() as folder, serving(services) as api:
        made = Pool(services, api, folder)
        server = NodeServer(folder / "node.sock", {"/snapshots/verify": made.answer})
        server.start()
        sockets = {SEAT: str(server.socket_path)}
        token = services.vault.node_token
        made.register(Ingress("127.0.0.1:0", node_token=token, find_socket=sockets.get).start())
        yield made
        server.stop()


def test_receipt_is_found_by_its_jobs_id_and_by_its_own(pool: Pool) -> None:
    by_job = pool.api.get(f"/api/v1/jobs/{pool.job_id}/receipt").json()
    assert (by_job["id"], by_job["job"], by_job["level"]) == (
        pool.receipt_id,
        pool.job_id,
        "files",
    )
    by_id = pool.api.get(f"/api/v1/receipts/{pool.receipt_id}").json()
    assert by_id == by_job | {"job": None}


def test_signed_receipt_is_verified_with_the_pools_key(pool: Pool) -> None:
    answer = pool.api.get(f"/api/v1/jobs/{pool.job_id}/receipt", params={"format": "dsse"})
    assert answer.headers["content-type"] == "application/vnd.dsse.envelope.v1+json"
    key = pool.api.get("/api/v1/pool/key").json()
    public = PublicKey.from_pem(key["pem"].encode())
    assert public.keyid == key["keyid"]
    statement, _ = verify_statement(read_envelope(answer.content), [public])
    assert (statement.predicate.id, statement.predicate.job) == (pool.receipt_id, pool.job_id)
    config = next(one for one in statement.subject if one.name == "config.json")
    assert config.digest.keys() == {"sha256", "gitBlob"}


def test_control_planes_of_a_cluster_sign_with_one_key_and_other_clusters_with_another() -> None:
    assert Vault(b"k" * 32).signing_seed == Vault(b"k" * 32).signing_seed
    assert Vault(b"k" * 32).signing_seed != Vault(b"l" * 32).signing_seed


def test_check_again_reads_every_file_of_the_receipt(pool: Pool) -> None:
    found = pool.verify().json()
    assert (found["passed"], found["error"], found["memory"]) == (True, None, None)
    assert (found["receipt"], found["job"]) == (pool.receipt_id, pool.job_id)
    assert found["disk"]["read_bytes"] == sum(one["size"] for one in found["disk"]["files"])
    again = pool.api.post(f"/api/v1/receipts/{pool.receipt_id}/verify").json()
    assert again["passed"]


def test_changed_byte_is_integrity_and_in_quarantine_until_it_is_fetched_again(pool: Pool) -> None:
    replace_bytes(pool.snapshot / WEIGHTS, flip_last_byte, quietly=True)
    found = pool.verify().json()
    assert (found["passed"], found["error"]["code"]) == (False, "integrity")
    assert found["differences"] == [f"{WEIGHTS} is corrupt on n0"]
    assert found["consequences"] == [f"{WEIGHTS} is in quarantine"]
    assert is_problem(pool.verify(), 404, "not-found")


def test_changed_byte_is_where_it_was_while_a_fetch_is_at_work_and_the_answer_says_so(
    pool: Pool,
) -> None:
    replace_bytes(pool.snapshot / WEIGHTS, flip_last_byte, quietly=True)
    subject = copies.subject("s0", REPOSITORY, COMMIT)
    with pool.services.database.write() as tx:
        assert leases.acquire(tx, subject=subject, kind="snapshot", holder="n0:j", ttl_seconds=60)
    found = pool.verify().json()
    (consequence,) = found["consequences"]
    assert consequence.startswith(f"{WEIGHTS} is where it was")
    assert (pool.snapshot / WEIGHTS).exists()


def test_node_that_is_lost_or_silent_is_not_taken_for_a_wrong_copy(pool: Pool) -> None:
    pool.register("http://127.0.0.1:9")
    assert is_problem(pool.verify(), 502, "host-lost")
    with pool.services.database.write() as tx:
        nodes.set_state(tx, "n0", NodeState.LOST)
    assert is_problem(pool.verify(), 404, "not-found")


def test_node_of_another_cluster_answers_nothing(pool: Pool) -> None:
    other = Ingress("127.0.0.1:0", node_token="other", find_socket=lambda _: None)
    pool.register(other.start())
    assert is_problem(pool.verify(), 502, "host-lost")


@pytest.mark.parametrize("receipt_id", ["rec_none", "%00", "x" * 5_000])
def test_unknown_receipt_is_not_found(pool: Pool, receipt_id: str) -> None:
    path = f"/api/v1/receipts/{receipt_id}"
    for answer in (pool.api.get(path), pool.api.post(f"{path}/verify")):
        assert is_problem(answer, 404, "receipt-not-found")


def test_unknown_format_is_refused(pool: Pool) -> None:
    path = f"/api/v1/receipts/{pool.receipt_id}?format=pdf"
    assert is_problem(pool.api.get(path), 400, "bad-request")
