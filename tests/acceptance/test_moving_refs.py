"""Names that move at the Hub: while a job fetches, while files are cached, while a model is warm."""

import uuid
from collections.abc import Callable, Iterator

import pytest

import warmrack
from tests.acceptance.own_weights import own_weights
from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.hub.control import Hub, running_hub
from tests.hub.faults import Stall
from tests.hub.models import get_model_folder
from warmrack import errors

pytestmark = pytest.mark.slow

QUICK_RIGHTS = {"WARMRACK_RIGHT_PUBLIC_SECONDS": "1", "WARMRACK_RIGHT_DENY_SECONDS": "0"}
TASK = {"text": "x"}
Change = Callable[[Hub, str], None]


@pytest.fixture(scope="module")
def pool() -> Iterator[Stack]:
    with running_hub() as hub, running_stack(hub, settings=QUICK_RIGHTS) as stack:
        yield stack


@pytest.fixture
def hub(pool: Stack) -> Iterator[Hub]:
    yield pool.hub
    pool.hub.clear_faults()


@pytest.fixture
def client(pool: Stack) -> Iterator[warmrack.Client]:
    with pool.client() as opened:
        yield opened


@pytest.fixture
def name(hub: Hub) -> str:
    """A public model that is like no other."""
    fresh = f"acme/moving-{uuid.uuid4().hex[:8]}"
    hub.add_repository(fresh, get_model_folder("tiny_llama"))
    hub.add_commit(fresh, files={"model.safetensors": own_weights(fresh)})
    return fresh


def gate(hub: Hub, name: str) -> None:
    hub.change_repository(name, gated=True)


def close(hub: Hub, name: str) -> None:
    hub.change_repository(name, private=True)


def delete(hub: Hub, name: str) -> None:
    hub.remove_repository(name)


def forget(hub: Hub, name: str) -> None:
    """main is pushed by force, and the Hub no longer has where it was."""
    before = hub.get_commit(name).sha
    push(hub, name)
    hub.remove_commit(name, before)


def give_away(hub: Hub, name: str) -> None:
    """The repository is renamed, and another one takes its name."""
    hub.move_repository(name, f"{name}-renamed")
    hub.add_repository(name, get_model_folder("tiny_qwen"))


def push(hub: Hub, name: str) -> None:
    hub.force_push(name, files={"model.safetensors": own_weights(f"{name}, again")})


SHUT = [
    pytest.param(gate, errors.Gated, id="gated"),
    pytest.param(close, errors.RepoNotFound, id="made private"),
    pytest.param(delete, errors.RepoNotFound, id="deleted"),
]


def fetch_across(client: warmrack.Client, hub: Hub, name: str, change: Change) -> warmrack.Job:
    """A prefetch whose commit was pinned before the change, and no file of it fetched."""
    client.explain(name)  # the facts of the commit are known from here on
    hub.reset_counts()
    held = hub.add_fault(Stall(), path=f"/{name}/resolve/")
    job = client.prefetch(name)
    hub.wait_for(requests=1, path=f"/{name}/resolve/", timeout_seconds=30)
    assert wait_until("the fetch", lambda: client.job(job.id).state == "fetching")
    change(hub, name)
    hub.clear_faults(held)
    return client.wait(job.id, timeout_seconds=60)


def warm_up(client: warmrack.Client, name: str) -> warmrack.Job:
    return client.wait(client.load(name).id, timeout_seconds=90)


def list_cached(pool: Stack, name: str) -> list[str]:
    """The commits of the repository that are visible in the cache."""
    folder = pool.cache_dir / f"models--{name.replace('/', '--')}" / "snapshots"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_fetch_brings_the_pinned_commit_though_its_branch_was_pushed_by_force(
    pool: Stack, client: warmrack.Client, hub: Hub, name: str
) -> None:
    before = hub.get_commit(name).sha
    job = fetch_across(client, hub, name, push)
    assert job.resolution is not None
    assert job.resolution.commit == before
    assert list_cached(pool, name) == [before]
    again = client.wait(client.prefetch(name).id, timeout_seconds=60)
    assert again.resolution is not None
    assert again.resolution.commit == hub.get_commit(name).sha != before


@pytest.mark.parametrize("change", [forget, give_away])
def test_fetch_of_a_commit_that_is_gone_fails_and_never_takes_another(
    pool: Stack, client: warmrack.Client, hub: Hub, name: str, change: Change
) -> None:
    with pytest.raises(errors.RevisionNotFound):
        fetch_across(client, hub, name, change)
    assert list_cached(pool, name) == []
    again = client.wait(client.prefetch(name).id, timeout_seconds=60)
    assert again.resolution is not None
    assert list_cached(pool, name) == [hub.get_commit(name).sha]


def test_fetch_goes_on_under_the_name_a_repository_got_meanwhile(
    client: warmrack.Client, hub: Hub, name: str
) -> None:
    commit = hub.get_commit(name).sha
    job = fetch_across(client, hub, name, lambda hub, name: hub.move_repository(name, f"{name}-b"))
    assert job.resolution is not None
    assert (job.resolution.repository, job.resolution.commit) == (name, commit)


@pytest.mark.parametrize(("change", "error"), SHUT)
def test_fetch_ends_where_the_repository_is_shut_meanwhile(
    pool: Stack,
    client: warmrack.Client,
    hub: Hub,
    name: str,
    change: Change,
    error: type[errors.WarmrackError],
) -> None:
    with pytest.raises(error):
        fetch_across(client, hub, name, change)
    assert list_cached(pool, name) == []


@pytest.mark.parametrize(("change", "error"), SHUT)
def test_cached_and_warm_model_is_refused_once_its_repository_is_shut(
    pool: Stack,
    client: warmrack.Client,
    hub: Hub,
    name: str,
    change: Change,
    error: type[errors.WarmrackError],
) -> None:
    commit = hub.get_commit(name).sha
    warm_up(client, name)
    assert client.run_task(name, "tokenize", TASK)
    change(hub, name)
    for asked in (name, f"{name}@{commit}"):
        with pytest.raises(error):
            client.wait(client.load(asked).id, timeout_seconds=60)
    with pytest.raises(error):
        wait_until("the belief to end", lambda: not client.run_task(name, "tokenize", TASK))
    assert name not in {resident.model for resident in client.residents()}, "nor named"
    assert list_cached(pool, name) == [commit], "bytes are never deleted for that"


def test_warm_model_goes_on_and_the_next_load_follows_its_branch(
    client: warmrack.Client, hub: Hub, name: str
) -> None:
    first = warm_up(client, name)
    push(hub, name)
    second = warm_up(client, name)
    assert second.resident != first.resident
    live = {resident.id: resident.commit for resident in client.residents()}
    assert live[str(second.resident)] == hub.get_commit(name).sha
    assert first.resident in live, "who holds the old commit keeps it"
    assert first.resolution is not None
    pinned = client.wait(client.load(f"{name}@{first.resolution.commit}").id, timeout_seconds=60)
    assert pinned.resident == first.resident


def test_commit_that_is_gone_is_served_from_the_cache_only_where_the_hub_is_not_asked(
    client: warmrack.Client, hub: Hub, name: str
) -> None:
    before = hub.get_commit(name).sha
    pinned = f"{name}@{before}"
    resident = warm_up(client, pinned).resident
    forget(hub, name)
    with pytest.raises(errors.RevisionNotFound):
        client.wait(client.load(pinned).id, timeout_seconds=60)
    for network in ("cached_first", "offline"):
        job = client.wait(client.load(pinned, network=network).id, timeout_seconds=60)
        assert job.resident == resident


def test_branch_that_is_gone_is_not_found_and_its_commit_is(
    client: warmrack.Client, hub: Hub, name: str
) -> None:
    commit = hub.get_commit(name).sha
    hub.set_branch(name, "next", commit)
    first = client.wait(client.load(name, revision="next").id, timeout_seconds=90)
    hub.set_branch(name, "next", None)
    with pytest.raises(errors.RevisionNotFound):
        client.wait(client.load(name, revision="next").id, timeout_seconds=60)
    again = client.wait(client.load(name, revision=commit).id, timeout_seconds=60)
    assert again.resident == first.resident


def test_old_name_of_a_renamed_repository_is_an_alias_and_costs_no_byte(
    client: warmrack.Client, hub: Hub, name: str
) -> None:
    first = warm_up(client, name)
    new = f"{name}-renamed"
    hub.move_repository(name, new)
    hub.reset_counts()
    second = warm_up(client, name)
    assert second.resolution is not None
    assert (second.resolution.repository, second.resolution.substitution) == (new, "alias")
    assert second.resident == first.resident
    weights = hub.read_counts().file_bytes(file="model.safetensors")
    assert weights < 110_000, "headers alone: the new name's facts are asked for"


def test_another_repository_under_an_old_name_is_that_repository(
    client: warmrack.Client, hub: Hub, name: str
) -> None:
    first = warm_up(client, name)
    give_away(hub, name)
    second = warm_up(client, name)
    assert second.resolution is not None
    assert second.resolution.commit == hub.get_commit(name).sha
    assert second.resident != first.resident
