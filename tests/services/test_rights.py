"""Rights as the test Hub gives and takes them, believed for a time and no longer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hub.control import Hub, Served, running_hub
from tests.hub.faults import Status
from tests.services.hub_rights import opened_rights
from tests.services.stores import Store
from warmrack_store.errors import Gated, HubUnavailable, RepoNotFound, Unauthorized
from warmrack_store.facts import RefFact
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import decisions
from warmrack_store.refs import ModelRef
from warmrack_store.requests import LoadRequest
from warmrack_store.resolving import resolve_request
from warmrack_store.rights import Rights

PUBLIC, PRIVATE, GATED = "rights/public", "rights/private", "rights/gated"
READER, OTHER = "hf_reader", "hf_other"


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "config.json").write_text("{}")
    repositories: dict[str, Served | Path] = {
        PUBLIC: folder,
        PRIVATE: Served(folder=folder, private=True, tokens=(READER,)),
        GATED: Served(folder=folder, gated=True, tokens=(READER,)),
    }
    with running_hub(repositories) as running:
        running.grant(OTHER)
        yield running


@pytest.fixture
def hub(shared_hub: Hub) -> Hub:
    shared_hub.clear_faults()
    shared_hub.grant(READER, PRIVATE, GATED)
    shared_hub.change_repository(PUBLIC, private=False)
    shared_hub.reset_counts()
    return shared_hub


@pytest.fixture
def rights(hub: Hub, sqlite: Store) -> Iterator[Rights]:
    with opened_rights(sqlite, hub.url) as opened:
        yield opened


@contextmanager
def outage(hub: Hub) -> Iterator[None]:
    number = hub.add_fault(Status(status=503))
    try:
        yield
    finally:
        hub.clear_faults(number)


def test_the_hub_decides_by_the_callers_own_token(rights: Rights) -> None:
    rights.check(PRIVATE, READER)
    rights.check(GATED, READER)
    rights.check(PUBLIC, None)
    for token in (OTHER, None):
        with pytest.raises(RepoNotFound):
            rights.check(PRIVATE, token)
        with pytest.raises(Gated):
            rights.check(GATED, token)
    with pytest.raises(Unauthorized):
        rights.check(PRIVATE, "hf_nobody")


def test_a_yes_is_believed_until_its_time_is_over_and_a_revocation_counts_then(
    hub: Hub, sqlite: Store, rights: Rights
) -> None:
    assert rights.check(PRIVATE, READER) == 600
    hub.revoke(READER, PRIVATE)
    sqlite.pass_time(599)
    assert 0 < rights.check(PRIVATE, READER) <= 1
    sqlite.pass_time(2)
    with pytest.raises(RepoNotFound):
        rights.check(PRIVATE, READER)
    assert hub.read_counts().requests(path="/auth-check") == 2


def test_a_no_is_believed_for_half_a_minute(hub: Hub, sqlite: Store, rights: Rights) -> None:
    for _ in range(3):
        with pytest.raises(RepoNotFound):
            rights.check(PRIVATE, OTHER)
    assert hub.read_counts().requests(path="/auth-check") == 1
    hub.grant(OTHER, PRIVATE)
    sqlite.pass_time(31)
    rights.check(PRIVATE, OTHER)
    hub.revoke(OTHER, PRIVATE)


def test_what_anybody_reads_is_asked_for_once_an_hour_for_all(
    hub: Hub, sqlite: Store, rights: Rights
) -> None:
    rights.check(PUBLIC, None)
    rights.check(PUBLIC, OTHER)
    sqlite.pass_time(3599)
    rights.check(PUBLIC, READER)
    assert hub.read_counts().requests() == 1
    sqlite.pass_time(2)
    rights.check(PUBLIC, None)
    assert hub.read_counts().requests() == 2


def test_another_cluster_and_another_spelling_do_not_change_who_may_read(
    sqlite: Store, rights: Rights
) -> None:
    rights.check(PRIVATE, READER)
    with pytest.raises(RepoNotFound):
        rights.check(PRIVATE.upper(), OTHER)
    with sqlite.database.read() as tx:
        stored = decisions.list_decisions(tx, [PRIVATE])
    assert {one.allows for one in stored} == {True, False}
    assert all(READER not in one.mark and OTHER not in one.mark for one in stored)
    assert all(READER.encode() not in (one.ciphertext or b"") for one in stored)
    assert [one.ciphertext is not None for one in stored] == [one.allows for one in stored]


@pytest.mark.parametrize(("repository", "token"), [(PRIVATE, READER), (GATED, READER)])
def test_a_silent_hub_lets_nobody_at_what_is_not_public(
    hub: Hub, sqlite: Store, rights: Rights, repository: str, token: str
) -> None:
    rights.check(repository, token)
    sqlite.pass_time(601)
    with outage(hub), pytest.raises(HubUnavailable):
        rights.check(repository, token)


def test_a_silent_hub_is_forgiven_within_the_grace_alone(hub: Hub, sqlite: Store) -> None:
    graces = {"grace_seconds": 100.0, "public_grace_seconds": 1000.0}
    with opened_rights(sqlite, hub.url, **graces) as rights:
        rights.check(PRIVATE, READER)
        rights.check(PUBLIC, None)
        with outage(hub):
            sqlite.pass_time(650)
            assert 0 < rights.check(PRIVATE, READER) <= 50
            sqlite.pass_time(51)
            with pytest.raises(HubUnavailable):
                rights.check(PRIVATE, READER)
            sqlite.pass_time(3600)
            rights.check(PUBLIC, OTHER)
            sqlite.pass_time(1000)
            with pytest.raises(HubUnavailable):
                rights.check(PUBLIC, OTHER)


def test_a_resolution_remembers_what_the_hub_said_and_asks_nothing_more_for_it(
    hub: Hub, sqlite: Store, rights: Rights
) -> None:
    facts = HubFacts(hub.url)
    for name, token in ((PUBLIC, None), (PRIVATE, READER)):
        ref = facts.find_ref(ModelRef(repository=name), token)
        rights.note(ref, token)
    hub.reset_counts()
    rights.check(PUBLIC, OTHER)
    rights.check(PRIVATE, READER)
    assert hub.read_counts().requests() == 0
    facts.close()


def test_a_refused_resolution_ends_the_belief_in_the_right_at_once(
    hub: Hub, sqlite: Store, rights: Rights
) -> None:
    rights.check(PRIVATE, READER)
    hub.revoke(READER, PRIVATE)
    facts = HubFacts(hub.url)
    with pytest.raises(RepoNotFound):
        resolve_request(
            sqlite.database,
            facts,
            LoadRequest(model=PRIVATE),
            READER,
            versions={},
            rights=rights,
        )
    with pytest.raises(RepoNotFound):
        rights.check(PRIVATE, READER)
    facts.close()


def test_a_repository_made_private_is_public_no_more_once_a_reader_was_refused(
    hub: Hub, rights: Rights
) -> None:
    rights.note(RefFact(repository=PUBLIC, commit="a" * 40, private=False, gated=False), OTHER)
    hub.change_repository(PUBLIC, private=True)
    rights.note_refusal(PUBLIC, OTHER, RepoNotFound("gone"))
    with pytest.raises(RepoNotFound):
        rights.check(PUBLIC, None)


def test_a_list_holds_what_the_caller_reads_and_nothing_that_nobody_can_say(
    hub: Hub, rights: Rights
) -> None:
    names = [PUBLIC, PRIVATE, GATED, "rights/nowhere"]
    assert rights.list_readable(names, READER) == {PUBLIC, PRIVATE, GATED}
    assert rights.list_readable(names, None) == {PUBLIC}
    with outage(hub):
        assert rights.list_readable(["rights/unknown"], READER) == frozenset()
