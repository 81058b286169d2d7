"""Work under way, and how it is told to stop."""

import pytest

from warmrack_store.errors import Cancelled, Expired, Timeout
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.moves import LostClaim
from warmrack_workers.activity import Activities, Activity, Stopping


def work(job_id: str = "job1", epoch: int = 1) -> Activity:
    return Activity(claim=Claim(job_id=job_id, holder="h", epoch=epoch))


def test_work_goes_on_until_it_is_told_to_stop() -> None:
    activity = work()
    activity.check()
    activity.stop.set()
    with pytest.raises(Stopping):
        activity.check()


@pytest.mark.parametrize(
    ("cause", "kind"),
    [("cancelled", Cancelled), ("timeout", Timeout), ("expired", Expired), ("unknown", Cancelled)],
)
def test_a_cancel_stops_it_with_its_cause(cause: str, kind: type[Exception]) -> None:
    activity = work()
    activity.cancel(cause)
    with pytest.raises(kind, match="job1"):
        activity.check()


def test_the_first_reason_stands() -> None:
    activity = work()
    activity.lose()
    activity.cancel("cancelled")
    activity.end(Stopping())
    with pytest.raises(LostClaim):
        activity.check()


def test_a_newer_claim_of_the_same_job_neither_hides_the_older_one_nor_goes_with_it() -> None:
    activities = Activities()
    old, new = work(epoch=1), work(epoch=2)
    activities.add(old)
    activities.add(new)
    assert activities.list() == [old, new], "each is told by the heart when it is lost"
    activities.remove(old)
    assert activities.list() == [new]
    activities.remove(new)
    assert activities.list() == []
