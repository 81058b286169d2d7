"""Names over HTTP: what a caller sees of a pool that holds what he may not read."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.hub.control import Hub, Served, running_hub
from tests.services.residing import put_resident
from tests.services.submitted import claimed, submit
from tests.services.test_api import is_problem, serving
from tests.unit.lineages import QWEN2_1B, model
from tests.unit.repositories import ref_of
from warmrack_daemon.api.names import HIDDEN
from warmrack_daemon.services import Services
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import claims, copies, egress, receipts, resolutions
from warmrack_store.receipts import name_receipt
from warmrack_store.requests import LoadRequest
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.rights import Rights
from warmrack_store.states import JobState

PRIVATE, PUBLIC = "rights/private", "rights/public"
READER, OPERATOR = "hf_reader", "operator-of-this-pool"
LISTS = ("jobs", "residents", "snapshots", "egress?by=repository", "egress?by=job", "nodes")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "config.json").write_text("{}")
    repositories: dict[str, Served | Path] = {
        PUBLIC: folder,
        PRIVATE: Served(folder=folder, private=True, tokens=(READER,)),
    }
    with running_hub(repositories) as running:
        running.grant("hf_other")
        yield running


@pytest.fixture
def pool(services: Services, hub: Hub) -> Iterator[httpx.Client]:
    """A pool that has loaded a private repository for its reader, and a public one."""
    facts = HubFacts(hub.url)
    asking = replace(
        services,
        settings=services.settings.model_copy(update={"operator_token": OPERATOR}),
        hub=facts,
        rights=Rights(database=services.database, hub=facts, vault=services.vault),
    )
    for name, token in ((PRIVATE, READER), (PUBLIC, None)):
        put_loaded(services, name, token)
    with serving(asking) as api:
        yield api
    facts.close()


def put_loaded(services: Services, name: str, token: str | None) -> None:
    """The rows that a load of the model leaves: job, receipt, copy, egress and resident."""
    facts = model(name, QWEN2_1B).model_copy(update={"private": token is not None})
    asked = Asked(ref=ref_of(facts), facts=facts, age_seconds=0.0)
    resolution = resolve(LoadRequest(model=name), asked, versions={})
    mark = services.vault.mark(token)
    job = submit(services.database, name, rights=mark)
    held = claimed(services.database)
    with services.database.write() as tx:
        resolution_id = resolutions.put_resolution(tx, resolution)
        receipt_id = receipts.insert_receipt(tx, resolution_id, name_receipt(resolution))
        commit = resolution.commit
        copies.put_copy(
            tx, store="s0", repository=name, commit=commit, selection="all", complete=True
        )
        egress.record_egress(
            tx,
            job_id=job.id,
            tenant="default",
            node="n0",
            repository=name,
            commit=commit,
            hub_bytes=7,
        )
        claims.move(tx, held, JobState.PLACED, resolution_id=resolution_id)
        claims.move(tx, held, JobState.FETCHING)
        claims.finish(tx, held, JobState.SUCCEEDED, receipt_id=receipt_id)
    put_resident(services.database, name[-6:], repository=name, cause="loaded")


def ask(api: httpx.Client, path: str, **who: str) -> httpx.Response:
    headers = {"hub": "X-Hub-Token", "operator": "X-Operator-Token"}
    return api.get(f"/api/v1/{path}", headers={headers[name]: v for name, v in who.items()})


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("who", [{}, {"hub": "hf_other"}, {"operator": "guessed-this-token"}])
def test_lists_show_a_private_repository_to_nobody_else(
    pool: httpx.Client, path: str, who: dict[str, str]
) -> None:
    answer = ask(pool, path, **who)
    assert answer.status_code == 200
    assert "private" not in answer.text.lower()


@pytest.mark.parametrize("path", LISTS[:4])
@pytest.mark.parametrize("who", [{"hub": READER}, {"operator": OPERATOR}])
def test_lists_show_it_to_its_reader_and_to_the_operator(
    pool: httpx.Client, path: str, who: dict[str, str]
) -> None:
    answer = ask(pool, path, **who)
    assert PRIVATE in answer.text
    assert PUBLIC in answer.text
    assert HIDDEN not in answer.text


@pytest.mark.parametrize("path", LISTS[:4])
def test_a_hidden_row_is_still_counted(pool: httpx.Client, path: str) -> None:
    items = ask(pool, path).json()["items"]
    names = [item.get("model") or item["repository"] for item in items]
    assert sorted(names) == [HIDDEN, PUBLIC]
    if path.startswith("egress"):
        assert {item["hub_bytes"] for item in items} == {7}


def test_a_job_and_its_events_tell_a_stranger_only_how_far_it_is(pool: httpx.Client) -> None:
    [job] = [one for one in ask(pool, "jobs").json()["items"] if one["model"] == HIDDEN]
    for path in (f"jobs/{job['id']}", f"jobs/{job['id']}/events"):
        answer = ask(pool, path, hub="hf_other")
        assert "succeeded" in answer.text
        assert "private" not in answer.text
    assert ask(pool, f"jobs/{job['id']}", hub=READER).json()["model"] == PRIVATE


def test_nothing_is_found_by_a_name_that_the_caller_may_not_know(pool: httpx.Client) -> None:
    assert ask(pool, f"jobs?model={PRIVATE}").json()["items"] == []
    assert len(ask(pool, f"jobs?model={PRIVATE}", hub=READER).json()["items"]) == 1
    for method, path in (("DELETE", PRIVATE), ("POST", f"{PRIVATE}/pin")):
        answer = pool.request(method, f"/api/v1/residents/{path}")
        assert is_problem(answer, 404, "resident-not-found")
    token = {"X-Hub-Token": READER}
    assert pool.delete(f"/api/v1/residents/{PRIVATE}", headers=token).status_code == 202


def test_a_receipt_is_shown_and_checked_again_for_its_readers_alone(pool: httpx.Client) -> None:
    [job] = ask(pool, f"jobs?model={PRIVATE}", hub=READER).json()["items"]
    for path in (f"jobs/{job['id']}/receipt", f"receipts/{job['receipt']}"):
        assert ask(pool, path, hub=READER).json()["asked"] == PRIVATE
        assert is_problem(ask(pool, path, hub="hf_other"), 404, "receipt-not-found")
        assert is_problem(ask(pool, f"{path}?format=dsse"), 404, "receipt-not-found")
        answer = pool.post(f"/api/v1/{path}/verify")
        assert is_problem(answer, 404, "receipt-not-found")


def test_who_asked_for_what_he_may_not_read_hears_the_hubs_word(pool: httpx.Client) -> None:
    body = {"kind": "load", "request": {"model": PRIVATE}}
    token = {"X-Hub-Token": "hf_other"}
    job = pool.post("/api/v1/jobs", json=body, headers=token).json()
    assert job["model"] == PRIVATE
    assert ask(pool, f"jobs/{job['id']}", hub="hf_other").json()["model"] == PRIVATE
    assert ask(pool, f"jobs/{job['id']}").json()["model"] == HIDDEN
