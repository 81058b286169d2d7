"""A right that is taken away while the model is warm."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub.control import Hub, Served, running_hub
from tests.hub.faults import Status
from tests.services.hub_rights import KEY
from tests.services.residing import put_resident
from tests.services.stores import Store
from tests.services.submitted import claimed, submit
from tests.unit.lineages import QWEN2_1B, model
from tests.unit.repositories import ref_of
from warmrack_daemon.revocations import Revocations
from warmrack_daemon.services import Services
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import claims, decisions, residents, resolutions
from warmrack_store.ledgers.jobs import get_job
from warmrack_store.requests import LoadRequest
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.rights import Rights
from warmrack_store.states import JobState
from warmrack_store.vault import Vault

PRIVATE = "Rights/Private"
READER, SECOND = "hf_reader", "hf_second"


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "config.json").write_text("{}")
    repositories: dict[str, Served | Path] = {PRIVATE: Served(folder=folder, private=True)}
    with running_hub(repositories) as running:
        yield running


@pytest.fixture
def hub(shared_hub: Hub) -> Hub:
    shared_hub.clear_faults()
    shared_hub.grant(READER, PRIVATE)
    shared_hub.grant(SECOND, PRIVATE)
    return shared_hub


@pytest.fixture
def asking(services: Services, hub: Hub) -> Iterator[Services]:
    facts = HubFacts(hub.url)
    rights = Rights(database=services.database, hub=facts, vault=Vault(KEY))
    yield replace(services, hub=facts, rights=rights)
    facts.close()


@pytest.fixture
def resolution_id(asking: Services) -> str:
    """Of a warm resident of the private repository."""
    facts = model(PRIVATE, QWEN2_1B).model_copy(update={"private": True})
    asked = Asked(ref=ref_of(facts), facts=facts, age_seconds=0.0)
    with asking.database.write() as tx:
        made = resolutions.put_resolution(
            tx, resolve(LoadRequest(model=PRIVATE), asked, versions={})
        )
    put_resident(asking.database, "n0", resolution_id=made, repository=PRIVATE)
    return made


def drains(services: Services) -> bool:
    with services.database.read() as tx:
        [resident] = residents.list_live(tx)
    return resident.drain_requested


def sweep_later(services: Services, store: Store, seconds: float = 601) -> None:
    store.pass_time(seconds)
    Revocations(services).sweep()


def test_a_resident_stays_while_somebody_may_use_it_and_goes_with_the_last(
    asking: Services, hub: Hub, store: Store, resolution_id: str
) -> None:
    for token in (READER, SECOND):
        asking.rights.check(PRIVATE, token)
    hub.revoke(READER, PRIVATE)
    sweep_later(asking, store)
    assert not drains(asking)
    hub.revoke(SECOND, PRIVATE)
    Revocations(asking).sweep()
    assert not drains(asking), "the second reader's yes still holds"
    sweep_later(asking, store)
    assert drains(asking)


def test_an_outage_of_the_hub_unloads_nothing(
    asking: Services, hub: Hub, store: Store, resolution_id: str
) -> None:
    asking.rights.check(PRIVATE, READER)
    hub.add_fault(Status(status=503))
    sweep_later(asking, store)
    assert not drains(asking)


def test_the_running_task_of_who_lost_the_right_is_asked_to_stop(
    asking: Services, hub: Hub, store: Store, resolution_id: str
) -> None:
    asking.rights.check(PRIVATE, READER)
    asking.rights.check(PRIVATE, SECOND)
    ended = []
    for token in (READER, SECOND):
        job = submit(asking.database, PRIVATE, rights=asking.vault.mark(token))
        held = claimed(asking.database, seconds=100_000.0)
        with asking.database.write() as tx:
            claims.move(tx, held, JobState.PLACED, resolution_id=resolution_id)
            for state in (JobState.FETCHING, JobState.LOADING, JobState.RUNNING):
                claims.move(tx, held, state)
        ended.append(job.id)
    hub.revoke(READER, PRIVATE)
    sweep_later(asking, store)
    with asking.database.read() as tx:
        causes = [get_job(tx, job_id).cancel_cause for job_id in ended]
    assert causes == ["cancelled", None]


def test_a_token_is_kept_no_longer_than_it_is_needed(
    asking: Services, store: Store, hub: Hub
) -> None:
    asking.rights.check(PRIVATE, READER)
    sweep_later(asking, store)
    with asking.database.read() as tx:
        [kept] = decisions.list_decisions(tx, [PRIVATE])
    assert kept.ciphertext is None
