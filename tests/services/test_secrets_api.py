"""Stored Hub tokens: put, used by name, encrypted anew, forgotten, and never shown."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
import sqlalchemy as sa

import warmrack
from tests.services.test_api import is_problem, serving
from warmrack_daemon.services import Services
from warmrack_store.ledgers import secrets
from warmrack_store.ledgers.jobs import get_job
from warmrack_store.rights import Rights
from warmrack_store.schema import secrets as table
from warmrack_store.vault import Vault

TOKEN = "hf_stored_token"
CLUSTER, NEW = b"k" * 32, b"n" * 32


@pytest.fixture
def api(services: Services) -> Iterator[httpx.Client]:
    with serving(services) as client:
        yield client


def test_a_stored_token_is_used_by_its_name_and_shown_by_nothing(
    services: Services, api: httpx.Client
) -> None:
    with warmrack.Client(str(api.base_url)) as client:
        client.put_secret("team", TOKEN)
        assert client.secrets() == ("team",)
    assert TOKEN not in api.get("/api/v1/secrets").text
    body = {"kind": "load", "request": {"model": "org/name", "hub_secret": "team"}}
    answer = api.post("/api/v1/jobs", json=body)
    assert TOKEN not in answer.text
    with services.database.read() as tx:
        job = get_job(tx, answer.json()["id"])
        ciphertext = secrets.find_ciphertext(tx, job.secret_id)
    assert services.vault.decrypt(ciphertext or b"") == TOKEN
    assert job.rights == services.vault.mark(TOKEN)
    assert TOKEN not in str(job)


def test_a_name_that_is_not_stored_and_two_tokens_at_once_are_refused(api: httpx.Client) -> None:
    body = {"kind": "load", "request": {"model": "org/name", "hub_secret": "none"}}
    assert is_problem(api.post("/api/v1/jobs", json=body), 404, "not-found")
    assert is_problem(api.post("/api/v1/explain", json=body["request"]), 404, "not-found")
    task = {"model": "org/name", "request": {"hub_secret": "none"}}
    assert is_problem(api.post("/api/v1/tasks/embed", json=task), 404, "not-found")
    both = api.post("/api/v1/jobs", json=body, headers={"X-Hub-Token": "hf_x"})
    assert is_problem(both, 400, "contradiction")
    assert is_problem(api.delete("/api/v1/secrets/none"), 404, "not-found")
    assert is_problem(api.put("/api/v1/secrets/x", json={"token": "a b"}), 401, "unauthorized")
    assert is_problem(api.put("/api/v1/secrets/x", json={"token": ""}), 400, "bad-request")


def test_after_a_rotation_the_old_key_opens_nothing_and_the_new_one_everything(
    services: Services,
) -> None:
    vault = Vault(CLUSTER, [NEW])
    rights = Rights(database=services.database, hub=services.hub, vault=services.vault)
    with serving(services) as api:
        api.put("/api/v1/secrets/team", json={"token": TOKEN})
    with serving(replace(services, vault=vault, rights=rights)) as api:
        assert api.post("/api/v1/secrets/rotate").json() == {"renewed": 1}
        assert api.delete("/api/v1/secrets/other").status_code == 404
    with services.database.read() as tx:
        sealed = bytes(tx.execute(sa.select(table.c.ciphertext)).scalar_one())
    assert Vault(b"x" * 32, [NEW]).decrypt(sealed) == TOKEN


def test_a_token_is_replaced_and_forgotten(services: Services, api: httpx.Client) -> None:
    for token in ("hf_first", TOKEN):
        assert api.put("/api/v1/secrets/team", json={"token": token}).status_code == 204
    with services.database.read() as tx:
        assert services.vault.decrypt(secrets.get_named(tx, "default", "team")) == TOKEN
    assert api.delete("/api/v1/secrets/team").status_code == 204
    assert api.get("/api/v1/secrets").json()["items"] == []
