"""Jobs for several nodes: one row that the client sees, and a job for each node under it.

The parent is worked on by nobody: it stands as `fetching` without a holder until its children have
ended, and a sweep of the reconciler then ends it. It joins no other job; its children do.
"""

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.errors import BadRequest
from warmrack_store.ledgers import events, nodes
from warmrack_store.ledgers.jobs import Job, NewJob, get_job, submit_job
from warmrack_store.ledgers.moves import end
from warmrack_store.schema import jobs
from warmrack_store.states import TERMINAL, JobState
from warmrack_store.submissions import Submission


def submit_spread(tx: Transaction, new: NewJob) -> Job:
    """The job for a submission to several nodes, with one for each of them stored beside it.

    Raises as `submit_job`, and BadRequest where there are fewer nodes than asked for.
    """
    parent = submit_job(tx, new)
    if parent.state is not JobState.QUEUED:
        return parent  # an idempotency key stands for it
    names = _choose(tx, new.submission)
    children = [_submit_child(tx, new, parent.id, name) for name in names]
    tx.execute(
        jobs.update()
        .where(jobs.c.id == parent.id)
        .values(state=JobState.FETCHING, started_at=tx.now, asked_node=None)
    )
    jobs_by_node = dict(zip(names, children, strict=True))
    events.append(tx, parent.id, JobState.FETCHING, {"nodes": jobs_by_node})
    return get_job(tx, parent.id)


def _choose(tx: Transaction, submission: Submission) -> Sequence[str]:
    names = submission.node_names() or ()
    if not submission.counts_nodes:
        return tuple(dict.fromkeys(names))
    there = sorted(nodes.list_listening(tx))
    count = len(there) if names == ("all",) else int(names[0])
    if not 0 < count <= len(there):
        raise BadRequest(
            f"nodes: {names[0]} are asked for, {len(there)} are there",
            hint="`warmrack nodes` lists them.",
        )
    return there[:count]


def _submit_child(tx: Transaction, new: NewJob, parent_id: str, node: str) -> str:
    submission = new.submission.model_copy(update={"nodes": (node,)})
    child = submit_job(tx, replace(new, submission=submission, idempotency_key=None))
    tx.execute(jobs.update().where(jobs.c.id == child.id).values(parent=parent_id))
    return child.id


def list_children(tx: Transaction, parent_id: str) -> Sequence[Job]:
    query = sa.select(jobs).where(jobs.c.parent == parent_id).order_by(jobs.c.asked_node)
    return [Job.from_row(row) for row in tx.list(query)]


def list_open(tx: Transaction) -> Sequence[str]:
    """The ids of the parents that have not ended."""
    live = sa.and_(jobs.c.state.not_in(TERMINAL), jobs.c.holder.is_(None))
    parents = sa.select(jobs.c.parent).where(jobs.c.parent.is_not(None)).distinct()
    query = sa.select(jobs.c.id).where(live, jobs.c.id.in_(parents)).order_by(jobs.c.id)
    return [row["id"] for row in tx.list(query)]


def settle(tx: Transaction, parent_id: str) -> bool:
    """Show how far the children are, and end the parent with the last of them; whether its row
    changed. It ends as the worst of them did. Raises LostClaim where somebody else ends it."""
    parent = get_job(tx, parent_id, locked=True)
    children = list_children(tx, parent_id)
    if parent.state.terminal:
        return False
    left = [child for child in children if not child.state.terminal]
    if left:
        return _show(tx, parent, children, len(left))
    bad = [child for child in children if child.state is not JobState.SUCCEEDED]
    worst = min(bad, key=lambda child: child.state is not JobState.FAILED, default=None)
    told = worst or children[0]
    end(
        tx,
        parent,
        told.state,
        cause=told.cause,
        error=_error_of(worst) if worst is not None else None,
        resolution_id=told.resolution_id,
        receipt_id=told.receipt_id,
        bytes_done=sum(child.bytes_done for child in children),
        bytes_total=sum(child.bytes_total for child in children),
        result={"nodes": {str(c.asked_node): {"job": c.id, "state": c.state} for c in children}},
    )
    return True


def _show(tx: Transaction, parent: Job, children: Sequence[Job], left: int) -> bool:
    done = sum(child.bytes_done for child in children)
    total = sum(child.bytes_total for child in children)
    waiting_for = f"{left} of {len(children)} nodes"
    if (done, total, waiting_for) == (parent.bytes_done, parent.bytes_total, parent.waiting_for):
        return False
    tx.execute(
        jobs.update()
        .where(jobs.c.id == parent.id, jobs.c.state.not_in(TERMINAL))
        .values(
            bytes_done=done,
            bytes_total=total,
            rate=sum(child.rate or 0.0 for child in children),
            waiting_for=waiting_for,
            updated_at=tx.now,
        )
    )
    return True


def _error_of(child: Job) -> dict[str, object] | None:
    if child.error is None:
        return None
    return {**child.error, "message": f"{child.asked_node}: {child.error['message']}"}
