"""What a control plane remembers of resolutions."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.services.hosts import make_snapshot, make_spec, runtime_folder
from tests.services.stores import Store
from warmrack_daemon.resolved import Resolved
from warmrack_daemon.services import Services
from warmrack_store.brokers.celery_doorbell import CeleryDoorbell
from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.hub import HubFacts
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import AdapterPin, AdapterUse, Resolution
from warmrack_store.rights import Rights
from warmrack_store.settings import Settings
from warmrack_store.vault import Vault

NOWHERE = "redis://127.0.0.1:9/0"


@pytest.fixture(scope="module")
def resolution() -> Resolution:
    with runtime_folder() as folder:
        return make_spec(make_snapshot("tiny_llama", folder), folder).resolution


def make_pin(ref_asked: str | None, *, private: bool) -> AdapterPin:
    return AdapterPin(
        repository="org/lora",
        commit="b" * 40,
        ref_asked=ref_asked,
        private=private,
        gated=False,
        files=(),
        weights=(),
        how=AdapterUse.ATTACHED,
        rank=8,
        alpha=16,
        target_modules=("q_proj",),
        modules=1,
        parameters=1,
        memory_bytes=4,
        base_named=None,
    )


@pytest.fixture
def quiet_services(sqlite: Store) -> Iterator[Services]:
    hub, vault = HubFacts("http://127.0.0.1:9"), Vault(b"k" * 32)
    opened = Services(
        settings=Settings(),
        database=sqlite.database,
        doorbell=CeleryDoorbell(NOWHERE),
        wakeups=Wakeups(NOWHERE),
        hub=hub,
        vault=vault,
        rights=Rights(database=sqlite.database, hub=hub, vault=vault),
        broker_url=NOWHERE,
    )
    yield opened
    opened.hub.close()
    opened.wakeups.close()


@pytest.fixture
def busy_threads() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_memory_is_found_by_the_request_and_the_token_alone(
    quiet_services: Services, resolution: Resolution
) -> None:
    resolved = Resolved(quiet_services)
    request = LoadRequest(model="org/name")
    resolved.remember(request, "hf_one", resolution)
    assert resolved.find(request, "hf_one") is resolution
    assert resolved.find(request, "hf_two") is None
    assert resolved.find(request, None) is None
    assert resolved.find(LoadRequest(model="org/other"), "hf_one") is None


def test_the_oldest_goes_first_and_no_other_for_one_that_is_known(
    quiet_services: Services, resolution: Resolution
) -> None:
    resolved = Resolved(quiet_services, most_entries=2)
    first, second, third = (LoadRequest(model=f"org/m{number}") for number in range(3))
    for request in (first, second, first, third):
        resolved.remember(request, None, resolution)
    kept = [resolved.find(one, None) is not None for one in (first, second, third)]
    assert kept == [True, False, True]


@pytest.mark.parametrize(
    ("adapter_ref", "private", "seconds"),
    [(None, False, 30), ("main", False, 30), ("b" * 40, False, 3600), ("b" * 40, True, 600)],
)
def test_an_adapter_that_may_move_or_be_forbidden_is_asked_for_as_often_as_a_model(
    quiet_services: Services,
    resolution: Resolution,
    monkeypatch: pytest.MonkeyPatch,
    adapter_ref: str | None,
    private: bool,
    seconds: int,
) -> None:
    now = [0.0]
    monkeypatch.setattr("warmrack_daemon.resolved.time.monotonic", lambda: now[0])
    resolved = Resolved(quiet_services)
    request = LoadRequest(model="org/name", revision="a" * 40, adapter="org/lora")
    pin = make_pin(adapter_ref, private=private)
    changes = {"ref_asked": "a" * 40, "private": False, "gated": False, "adapter": pin}
    resolved.remember(request, None, resolution.model_copy(update=changes))
    now[0] = seconds - 1
    assert resolved.find(request, None) is not None
    now[0] = seconds + 1
    assert resolved.find(request, None) is None


def test_a_full_memory_takes_from_several_threads_at_once(
    quiet_services: Services, resolution: Resolution, busy_threads: None
) -> None:
    resolved = Resolved(quiet_services, most_entries=1)
    requests = [LoadRequest(model=f"org/m{number}") for number in range(16)]

    def remember(turn: int) -> None:
        for number in range(3000):
            resolved.remember(requests[(turn + number) % len(requests)], None, resolution)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(remember, range(8)))
