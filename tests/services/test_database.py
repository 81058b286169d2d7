"""Transactions on real databases: what they see, what they leave, and what their failure is."""

import os
import socket
import threading
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests.services.stores import Postgres, Store, free_port
from warmrack_store.database import Database
from warmrack_store.errors import StoreUnavailable
from warmrack_store.schema import secrets


def put(database: Database, secret_id: str) -> None:
    with database.write() as tx:
        tx.execute(secrets.insert().values(id=secret_id, ciphertext=b"x", created_at=tx.now))


def count(database: Database) -> int:
    with database.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(secrets)).scalar_one())


def test_what_raises_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.write() as tx:
            tx.execute(secrets.insert().values(id="a", ciphertext=b"x", created_at=tx.now))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert count(database) == 0


def test_a_read_sees_one_state_to_its_end(database: Database) -> None:
    query = sa.select(sa.func.count()).select_from(secrets)
    with database.read() as tx:
        assert tx.execute(query).scalar_one() == 0
        writer = threading.Thread(target=put, args=(database, "a"))
        writer.start()
        writer.join()
        assert tx.execute(query).scalar_one() == 0
    assert count(database) == 1


def test_a_read_holds_up_no_writer_and_a_writer_no_read(database: Database) -> None:
    with database.write() as tx:
        tx.execute(secrets.insert().values(id="a", ciphertext=b"x", created_at=tx.now))
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.append(count(database)))
        reader.start()
        reader.join(timeout=10)
        assert seen == [0]


def test_a_serialized_section_is_passed_by_one_at_a_time(database: Database) -> None:
    inside, most = [], []
    lock = threading.Lock()
    together = threading.Barrier(4)

    def run() -> None:
        together.wait()
        for _ in range(5):
            with database.write() as tx:
                tx.serialize("section")
                with lock:
                    inside.append(1)
                    most.append(len(inside))
                tx.find(sa.select(secrets.c.id))
                with lock:
                    inside.pop()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 20


def test_the_clock_is_read_once_a_transaction_and_moves_on(store: Store) -> None:
    with store.database.read() as tx:
        first = tx.now
        assert tx.now == first
    with store.database.read() as tx:
        assert tx.now > first


def test_postgres_reads_refuse_to_write(store: Store) -> None:
    if store.database.dialect == "sqlite":
        pytest.skip("SQLite has no such transaction")
    with pytest.raises(sa.exc.InternalError), store.database.read() as tx:
        tx.execute(secrets.insert().values(id="a", ciphertext=b"x", created_at=0.0))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_database_that_is_away_is_unavailable_without_its_password(
    tmp_path: Path, kind: str
) -> None:
    urls = {
        "sqlite": f"sqlite:///{tmp_path / 'none' / 'x.db'}",
        "postgres": f"postgresql+psycopg://me:hidden@127.0.0.1:{free_port()}/x",
    }
    database = Database(urls[kind])
    with pytest.raises(StoreUnavailable) as away, database.read() as tx:
        tx.find(sa.select(secrets.c.id))
    assert "hidden" not in away.value.message
    database.close()


def test_postgres_that_vanishes_is_noticed_soon(postgres: Postgres) -> None:
    with postgres.empty_database() as url:
        for asked, seconds in (("", 5), ("?connect_timeout=9", 9)):
            database = Database(url + asked)
            with database.read() as tx:
                answer = tx.execute(sa.text("SELECT 1"))
                driver = answer.connection.connection.driver_connection
                assert isinstance(driver, psycopg.Connection)
                told = driver.info.get_parameters()
                with socket.socket(fileno=os.dup(driver.fileno())) as line:
                    silence_ms = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            database.close()
            assert (told["connect_timeout"], told["keepalives_idle"]) == (str(seconds), "10")
            assert silence_ms == 15_000


def test_database_without_our_tables_asks_to_be_migrated(store: Store) -> None:
    for change in ("ALTER TABLE secrets DROP COLUMN ciphertext", "DROP TABLE secrets"):
        with store.database.write() as tx:
            tx.execute(sa.text(change))
        with pytest.raises(StoreUnavailable) as unready:
            put(store.database, "a")
        assert "warmrack migrate" in unready.value.hint
        assert "does not answer" not in unready.value.message


def test_sqlite_stores_before_it_says_so(sqlite: Store) -> None:
    with sqlite.database.read() as tx:
        modes = [
            tx.execute(sa.text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert modes == ["wal", 2, 1]
