"""Migrations against the schema, on real databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.services.stores import Postgres
from warmrack_store.database import Database, alembic_config, migrate, schema_revision
from warmrack_store.schema import metadata


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'deep' / 'new.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.empty_database() as url:
        yield url


def list_tables(url: str) -> set[str]:
    engine = sa.create_engine(url)
    try:
        return set(sa.inspect(engine).get_table_names()) - {"alembic_version"}
    finally:
        engine.dispose()


def test_migrating_an_empty_database_gives_exactly_the_schema(empty_url: str) -> None:
    migrate(empty_url)
    engine = sa.create_engine(empty_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)
    engine.dispose()
    assert differences == []
    assert list_tables(empty_url) == set(metadata.tables)


def test_migrating_twice_changes_nothing(empty_url: str) -> None:
    migrate(empty_url)
    at, newest = schema_revision(empty_url)
    migrate(empty_url)
    assert at == newest
    assert schema_revision(empty_url) == (at, newest)


def test_a_downgrade_leaves_no_table_and_the_way_up_is_open_again(empty_url: str) -> None:
    migrate(empty_url)
    command.downgrade(alembic_config(empty_url), "base")
    assert list_tables(empty_url) == set()
    assert schema_revision(empty_url)[0] is None
    migrate(empty_url)
    assert list_tables(empty_url) == set(metadata.tables)


def test_opening_a_database_migrates_nothing(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir(exist_ok=True)
    Database(empty_url).close()
    assert list_tables(empty_url) == set()
