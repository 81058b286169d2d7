"""The databases, the broker and the control plane's services that tests share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import redis

from tests.services.stores import (
    Postgres,
    ServiceMissing,
    Store,
    make_sqlite_template,
    running_broker,
    running_postgres,
    sqlite_store,
)
from warmrack_daemon.services import Services
from warmrack_store.brokers.celery_doorbell import CeleryDoorbell
from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.database import Database
from warmrack_store.hub import HubFacts
from warmrack_store.rights import Rights
from warmrack_store.settings import Settings
from warmrack_store.vault import Vault


def _missing(error: ServiceMissing) -> NoReturn:
    """A missing service skips on a laptop and fails in CI."""
    if os.environ.get("CI"):
        pytest.fail(str(error))
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    try:
        with running_postgres() as server:
            yield server
    except ServiceMissing as error:
        _missing(error)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with running_broker(tmp_path_factory.mktemp("broker")) as url:
            yield url
    except ServiceMissing as error:
        _missing(error)


@pytest.fixture
def broker(valkey: str) -> str:
    """The URL of a real broker with nothing in it."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    return valkey


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sqlite_template(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture
def sqlite(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    """An empty, migrated SQLite database, for what no database could change."""
    with sqlite_store(tmp_path, sqlite_template) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path) -> Iterator[Store]:
    """An empty, migrated database of each kind, and a way to let time pass."""
    if request.param == "sqlite":
        with sqlite_store(tmp_path, sqlite_template) as made:
            yield made
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.store() as made:
        yield made


@pytest.fixture
def database(store: Store) -> Database:
    return store.database


@pytest.fixture
def services(store: Store, broker: str, tmp_path: Path) -> Iterator[Services]:
    """A control plane's services on each database and a real broker; no Hub is asked."""
    hub, vault = HubFacts("http://127.0.0.1:9"), Vault(b"k" * 32)
    opened = Services(
        settings=Settings(state_dir=tmp_path, database_url=store.url, broker_url=broker),
        database=store.database,
        doorbell=CeleryDoorbell(broker),
        wakeups=Wakeups(broker),
        hub=hub,
        vault=vault,
        rights=Rights(database=store.database, hub=hub, vault=vault),
        broker_url=broker,
    )
    yield opened
    opened.hub.close()
    opened.wakeups.close()
