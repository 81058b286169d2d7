"""From which node each of several reads a file, decided from what SQL says."""

from hypothesis import given
from hypothesis import strategies as st

from warmrack_store.ledgers.arrivals import Arrival
from warmrack_workers.fetch.chain import plan_upstream

_DIGEST = "d" * 64


def _arrival(node: str, epoch: int, *, upstream: str | None = None, store: str = "") -> Arrival:
    return Arrival(
        digest=_DIGEST,
        holder=f"{node}:x",
        node=node,
        store=store or f"store-{node}",
        upstream=upstream,
        epoch=epoch,
    )


def _plan(me: Arrival, line: list[Arrival], holders: set[str], away: set[str]) -> str | None:
    everybody = {one.node for one in line} | holders
    return plan_upstream(me, line, holders, everybody - away)


def test_who_joins_reads_from_the_last_who_joined_before_it() -> None:
    line = [_arrival(f"n{index}", index) for index in range(1, 9)]
    chain = [_plan(me, line, set(), set()) for me in line]
    assert chain == [None, "n1", "n2", "n3", "n4", "n5", "n6", "n7"]


def test_whole_copy_comes_before_the_hub_and_before_the_line() -> None:
    line = [_arrival("n1", 1), _arrival("n2", 2)]
    assert _plan(line[0], line, {"whole"}, set()) == "whole"
    taken = [_arrival("n1", 1, upstream="whole"), line[1]]
    assert _plan(taken[1], taken, {"whole"}, set()) == "n1", "one reader a copy, then the line"
    assert _plan(taken[1], taken, {"whole", "second"}, set()) == "second"


def test_first_of_two_who_chose_one_copy_at_once_keeps_it() -> None:
    line = [_arrival("n1", 1, upstream="whole"), _arrival("n2", 2, upstream="whole")]
    assert [_plan(me, line, {"whole"}, set()) for me in line] == ["whole", "n1"]


def test_dead_node_is_passed_over_for_the_one_before_it() -> None:
    line = [_arrival(f"n{index}", index) for index in (1, 2, 3)]
    assert _plan(line[2], line, set(), {"n2"}) == "n1"
    assert _plan(line[2], line, set(), {"n1", "n2"}) is None


def test_nodes_of_one_store_do_not_read_from_one_another() -> None:
    line = [_arrival("n1", 1, store="shared"), _arrival("n2", 2, store="shared")]
    assert _plan(line[1], line, set(), set()) is None


def test_busy_copy_is_better_than_the_hub() -> None:
    line = [_arrival("n1", 1, upstream="whole"), _arrival("n2", 2)]
    assert _plan(line[1], line, {"whole"}, {"n1"}) == "whole"


@given(
    st.permutations(range(6)),
    st.sets(st.integers(0, 5)),
    st.sets(st.sampled_from(["w0", "w1"])),
)
def test_no_two_ever_wait_for_each_other(
    order: list[int], away: set[int], holders: set[str]
) -> None:
    line = [_arrival(f"n{node}", epoch) for epoch, node in enumerate(order)]
    epochs = {one.node: one.epoch for one in line}
    left_out = {f"n{node}" for node in away}
    for me in line:
        upstream = _plan(me, line, holders, left_out)
        assert upstream is None or upstream in holders or epochs[upstream] < me.epoch
        assert upstream is None or upstream not in left_out
        assert upstream is not None or not holders
