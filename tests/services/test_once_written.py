"""Rows that two transactions write for the first time at once: one row, and no error."""

import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from warmrack_store.database import Database, Transaction
from warmrack_store.ledgers import outbox, rates
from warmrack_store.schema import outbox as owed

_SECONDS = 20.0
_UNDER_WAY_SECONDS = 0.3
"""Long enough for the second transaction to stand at the first one's row."""


def write_twice_at_once(database: Database, write: Callable[[Transaction], None]) -> None:
    """The second transaction begins, and looks, while the first has written and not committed."""
    failures: list[Exception] = []

    def second() -> None:
        try:
            with database.write() as tx:
                write(tx)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=second)
    with database.write() as tx:
        write(tx)
        thread.start()
        thread.join(_UNDER_WAY_SECONDS)
    thread.join(_SECONDS)
    assert not failures


def test_first_rate_of_a_node_is_measured_twice_at_once(database: Database) -> None:
    write_twice_at_once(database, lambda tx: rates.record_rate(tx, "n0", "hub", 10.0))
    with database.read() as tx:
        assert rates.list_rates(tx) == {("n0", "hub"): pytest.approx(10.0)}


def test_answer_is_promised_twice_at_once_and_owed_once(database: Database) -> None:
    write_twice_at_once(
        database, lambda tx: outbox.owe(tx, job_id="j", kind="celery", address="task-1")
    )
    with database.read() as tx:
        assert len(tx.list(sa.select(owed))) == 1
