"""Submitting, joining and looking at jobs, on real databases."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from tests.services.stores import Store
from tests.services.submitted import claimed, look, new_job, submit, told
from warmrack_store.database import Database
from warmrack_store.errors import (
    Cancelled,
    IdempotencyConflict,
    JobNotFound,
    OverQuota,
    RateLimitedHere,
)
from warmrack_store.ledgers import cancels, claims, jobs
from warmrack_store.schema import job_events, secrets
from warmrack_store.schema import jobs as rows
from warmrack_store.states import JobState, Priority

_SUBMITTERS = 8
_SUBMIT_IN_A_PROCESS = """
import sys
from tests.services.submitted import submit
from warmrack_store.database import Database
database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(4):
    print(submit(database, key=sys.argv[2] or None).id)
database.close()
"""


def count(database: Database, table: sa.Table) -> int:
    with database.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def leaders(database: Database) -> list[str]:
    with database.read() as tx:
        found = tx.list(sa.select(rows.c.id).where(rows.c.joined_to.is_(None)))
        return [row["id"] for row in found]


def test_a_submitted_job_is_stored_queued_with_its_first_event(database: Database) -> None:
    job = submit(database, priority="background", nodes="n1")
    assert (job.state, job.joined_to, job.asked_node) == (JobState.QUEUED, None, "n1")
    assert look(database, job.id) == job
    assert told(database, job.id) == ["queued"]


def test_the_same_request_joins_the_live_job(database: Database) -> None:
    first, second = submit(database, "org/name"), submit(database, "hf://org/name")
    assert second.joined_to == first.id
    assert second.id != first.id


@pytest.mark.parametrize(
    "other",
    [
        {"rights": "another token"},
        {"tenant": "another tenant"},
        {"model": "org/other"},
        {"nodes": "n1"},
        {"kind": "prefetch"},
    ],
)
def test_what_differs_in_rights_or_work_does_not_join(
    database: Database, other: dict[str, str]
) -> None:
    submit(database)
    assert submit(database, **other).joined_to is None


def test_two_equal_task_jobs_do_not_join(database: Database) -> None:
    task: dict[str, Any] = {"kind": "task", "task": "generate", "payload": {"prompt": "hi"}}
    assert submit(database, **task).joined_to is None
    assert submit(database, **task).joined_to is None


def test_a_job_that_has_ended_is_not_joined(database: Database) -> None:
    submit(database)
    claim = claimed(database)
    with database.write() as tx:
        claims.finish(tx, claim, JobState.SUCCEEDED)
    assert submit(database).joined_to is None


def test_a_job_that_is_asked_to_end_is_not_joined(database: Database) -> None:
    first = submit(database)
    claimed(database)
    with database.write() as tx:
        cancels.request_cancel(tx, first.id, Cancelled("enough"))
    assert submit(database).joined_to is None


def test_a_joined_job_lifts_its_leader_to_its_own_priority(database: Database) -> None:
    first = submit(database, priority="background")
    submit(database, priority="interactive")
    with database.read() as tx:
        rank = tx.execute(sa.select(rows.c.rank).where(rows.c.id == first.id)).scalar_one()
    assert rank == Priority.INTERACTIVE.rank


def test_submits_from_many_threads_join_one_leader(database: Database) -> None:
    together = Barrier(_SUBMITTERS)

    def run(_: int) -> None:
        together.wait()
        submit(database)

    with ThreadPoolExecutor(_SUBMITTERS) as pool:
        list(pool.map(run, range(_SUBMITTERS)))
    assert count(database, rows) == _SUBMITTERS
    assert len(leaders(database)) == 1


@pytest.mark.parametrize(("key", "stored"), [("", 8), ("one-key", 1)])
def test_submits_from_processes_join_one_leader_and_a_key_is_one_job(
    store: Store, key: str, stored: int
) -> None:
    command = [sys.executable, "-c", _SUBMIT_IN_A_PROCESS, store.url, key]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    submitters = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for process in submitters:
        assert process.stdout.readline() == "ready\n"
    for process in submitters:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=60)[0].split() for process in submitters]
    assert [process.returncode for process in submitters] == [0, 0]
    assert len({job_id for ids in printed for job_id in ids}) == stored
    assert count(store.database, rows) == stored
    assert len(leaders(store.database)) == 1


def test_one_idempotency_key_from_many_threads_is_one_job(database: Database) -> None:
    together = Barrier(_SUBMITTERS)

    def run(_: int) -> str:
        together.wait()
        return submit(database, key="k").id

    with ThreadPoolExecutor(_SUBMITTERS) as pool:
        ids = set(pool.map(run, range(_SUBMITTERS)))
    assert len(ids) == 1
    assert count(database, rows) == 1


def test_a_key_gives_its_job_even_after_that_has_ended(database: Database) -> None:
    job = submit(database, key="k")
    with database.write() as tx:
        cancels.request_cancel(tx, job.id, Cancelled("enough"))
    again = submit(database, key="k")
    assert (again.id, again.state) == (job.id, JobState.CANCELLED)


def test_a_key_with_another_body_is_a_conflict_and_stores_nothing(database: Database) -> None:
    submit(database, key="k")
    with pytest.raises(IdempotencyConflict):
        submit(database, "org/other", key="k", token=b"x")
    assert count(database, rows) == 1
    assert count(database, secrets) == 0


def test_a_key_belongs_to_its_tenant(database: Database) -> None:
    assert submit(database, key="k").id != submit(database, key="k", tenant="other").id


def test_a_key_is_free_again_after_a_day(store: Store) -> None:
    first = submit(store.database, key="k")
    store.pass_time(jobs.IDEMPOTENCY_SECONDS + 1)
    second = submit(store.database, "org/other", key="k")
    assert second.id != first.id
    assert submit(store.database, "org/other", key="k").id == second.id


def test_a_full_queue_refuses_new_work_but_not_a_join(database: Database) -> None:
    submit(database)
    with pytest.raises(RateLimitedHere) as refused:
        submit(database, "org/other", max_queued=1)
    assert refused.value.retry_after_seconds
    assert submit(database, max_queued=1).joined_to is not None
    assert count(database, job_events) == 2


def test_a_tenants_quota_counts_what_is_unfinished_and_leaves_other_tenants_alone(
    database: Database,
) -> None:
    submit(database)
    held = claimed(database)
    with pytest.raises(OverQuota, match="tenant default has 1 unfinished") as refused:
        submit(database, "org/other", max_unfinished=1)
    assert refused.value.retry_after_seconds
    assert submit(database, max_unfinished=1).joined_to == held.job_id
    submit(database, "org/other", max_unfinished=1, tenant="another")
    with database.write() as tx:
        claims.finish(tx, held, JobState.SUCCEEDED)
    submit(database, "org/other", max_unfinished=1)


def test_an_unknown_job_is_named_as_missing(database: Database) -> None:
    for strange in ("job_none", "", "../..", "a\0b", "'; drop table jobs", "x" * 10_000):
        with database.read() as tx, pytest.raises(JobNotFound):
            jobs.get_job(tx, strange)


def test_pages_of_the_list_hold_each_job_once_newest_first(database: Database) -> None:
    made = [submit(database, f"org/m{n}").id for n in range(5)]
    seen: list[str] = []
    before = None
    while True:
        with database.read() as tx:
            page = [job.id for job in jobs.list_jobs(tx, before=before, limit=2)]
        if not page:
            break
        seen += page
        before = page[-1]
    assert seen == sorted(made, reverse=True)


def test_the_list_can_be_narrowed_to_a_state_and_a_model(database: Database) -> None:
    submit(database, "org/a")
    submit(database, "org/b")
    claim = claimed(database)
    with database.read() as tx:
        resolving = jobs.list_jobs(tx, state=JobState.RESOLVING)
        named = jobs.list_jobs(tx, model="ORG/B")
    assert [job.id for job in resolving] == [claim.job_id]
    assert [job.model for job in named] == ["org/b"]


def test_the_position_counts_the_waiting_jobs_that_go_first(database: Database) -> None:
    ahead = submit(database, "org/a", priority="interactive")
    mine = submit(database, "org/b")
    submit(database, "org/c")
    submit(database, "org/d", priority="background")
    with database.read() as tx:
        assert jobs.queue_position(tx, mine) == 2
        assert jobs.queue_position(tx, ahead) == 1
        assert jobs.count_waiting(tx) == 4


def test_a_new_job_keeps_what_its_submission_says(database: Database) -> None:
    new = new_job(timeout_seconds=12.5, expires_at="2030-01-01T00:00:00Z", max_attempts=2)
    with database.write() as tx:
        job = jobs.submit_job(tx, new)
    assert (job.timeout_seconds, job.max_attempts) == (12.5, 2)
    assert job.expires_at == 1893456000.0
    assert job.get_submission() == new.submission
