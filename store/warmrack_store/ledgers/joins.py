"""What a job and all that have joined it want together of the model that they wait for."""

from dataclasses import dataclass
from functools import reduce

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.moves import LostClaim
from warmrack_store.schema import jobs
from warmrack_store.states import TERMINAL
from warmrack_store.stays import Stay, get_stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The highest priority (the smallest rank) and the longest stay of all of them."""

    rank: int
    stay: Stay


def get_wish(tx: Transaction, job_id: str, *, default_keep_alive: str) -> Wish:
    """Read from the rows of those who wait now, so that it follows every join and every cancel.

    Raises LostClaim where the job has ended.
    """
    waiting = sa.and_(
        sa.or_(jobs.c.id == job_id, jobs.c.joined_to == job_id), jobs.c.state.not_in(TERMINAL)
    )
    everybody = [
        Job.from_row(row).get_submission() for row in tx.list(sa.select(jobs).where(waiting))
    ]
    if not everybody:
        raise LostClaim(job_id)
    stays = [get_stay(submission.keep_alive, default_keep_alive) for submission in everybody]
    return Wish(
        rank=min(submission.priority.rank for submission in everybody),
        stay=reduce(Stay.merge, stays),
    )
