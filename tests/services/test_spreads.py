"""A prefetch onto several nodes: one job for the client, one for each node."""

import pytest

from tests.services.submitted import claimed, look, new_job, submit
from warmrack_store.database import Database
from warmrack_store.errors import BadRequest, Cancelled, HubUnavailable
from warmrack_store.ledgers import cancels, claims, nodes, spreads
from warmrack_store.ledgers.jobs import Job
from warmrack_store.states import JobState, NodeState


def _register(database: Database, *names: str) -> None:
    with database.write() as tx:
        for name in names:
            nodes.register(
                tx,
                name,
                machine="m",
                store=name,
                devices=[],
                labels={},
                tasks={},
                versions={},
                pid=1,
            )


def _spread(database: Database, wanted: str, key: str | None = None) -> Job:
    with database.write() as tx:
        return spreads.submit_spread(tx, new_job(kind="prefetch", nodes=wanted, key=key))


def _children(database: Database, parent: Job) -> dict[str | None, Job]:
    with database.read() as tx:
        return {job.asked_node: job for job in spreads.list_children(tx, parent.id)}


def _settle(database: Database, parent: Job) -> Job:
    with database.write() as tx:
        spreads.settle(tx, parent.id)
    return look(database, parent.id)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [("all", {"n0", "n1", "n2"}), ("2", {"n0", "n1"}), ("n2,n9,n2", {"n2", "n9"})],
)
def test_each_node_gets_a_job_of_its_own(database: Database, wanted: str, names: set[str]) -> None:
    _register(database, "n0", "n1", "n2", "n3")
    with database.write() as tx:
        nodes.set_state(tx, "n3", NodeState.LOST)
    parent = _spread(database, wanted)
    assert parent.state is JobState.FETCHING
    assert _children(database, parent).keys() == names


def test_nobody_claims_the_parent_and_it_ends_with_the_last_child(database: Database) -> None:
    _register(database, "n0", "n1")
    parent = _spread(database, "all")
    for left in ("2 of 2 nodes", "1 of 2 nodes"):
        assert _settle(database, parent).waiting_for == left
        claim = claimed(database)
        assert claim.job_id != parent.id
        with database.write() as tx:
            claims.finish(tx, claim, JobState.SUCCEEDED, bytes_done=5, bytes_total=5)
    ended = _settle(database, parent)
    assert (ended.state, ended.bytes_done, ended.waiting_for) == (JobState.SUCCEEDED, 10, None)
    assert ended.result is not None
    assert ended.result["nodes"].keys() == {"n0", "n1"}
    with database.read() as tx:
        assert not spreads.list_open(tx)


def test_parent_fails_with_the_error_of_the_node_that_failed(database: Database) -> None:
    _register(database, "n0", "n1")
    parent = _spread(database, "all")
    for state, error in (
        (JobState.SUCCEEDED, None),
        (JobState.FAILED, HubUnavailable("no answer").to_record()),
    ):
        claim = claimed(database)
        with database.write() as tx:
            claims.finish(tx, claim, state, error=error)
    ended = _settle(database, parent)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error["message"].endswith(": no answer")


def test_cancel_of_the_parent_ends_the_work_on_every_node(database: Database) -> None:
    _register(database, "n0", "n1")
    parent = _spread(database, "all")
    held = claimed(database)
    with database.write() as tx:
        cancels.request_cancel(tx, parent.id, Cancelled("enough"))
    assert look(database, parent.id).state is JobState.CANCELLED
    states = {job.id: (job.state, job.cancel_cause) for job in _children(database, parent).values()}
    assert states.pop(held.job_id)[1] == "cancelled", "its holder is asked to stop"
    assert [state for state, _ in states.values()] == [JobState.CANCELLED]


def test_child_joins_a_job_that_already_brings_the_model_there(database: Database) -> None:
    _register(database, "n0", "n1")
    earlier = submit(database, kind="prefetch", nodes="n1")
    parent = _spread(database, "all")
    assert _children(database, parent)["n1"].joined_to == earlier.id
    assert submit(database, kind="prefetch", nodes="n0").joined_to is not None


def test_same_key_gives_the_same_parent_and_no_more_children(database: Database) -> None:
    _register(database, "n0", "n1")
    first = _spread(database, "all", key="k")
    assert _spread(database, "all", key="k").id == first.id
    assert len(_children(database, first)) == 2


@pytest.mark.parametrize("wanted", ["3", "0", "all"])
def test_more_nodes_than_there_are_is_refused_and_nothing_is_stored(
    database: Database, wanted: str
) -> None:
    if wanted != "all":
        _register(database, "n0", "n1")
    with pytest.raises(BadRequest):
        _spread(database, wanted)
    with database.read() as tx:
        assert not spreads.list_open(tx)
