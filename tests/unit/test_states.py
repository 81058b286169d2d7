"""The table of moves: what can follow what."""

import pytest

from warmrack_store.states import HELD, MOVES, TERMINAL, WAITING, JobState, ResidentState


def reachable(start: JobState) -> set[JobState]:
    found = {start}
    edge = [start]
    while edge:
        for state in MOVES[edge.pop()] - found:
            found.add(state)
            edge.append(state)
    return found


def test_every_state_has_a_row_and_is_held_waiting_or_terminal() -> None:
    assert set(MOVES) == set(JobState) == HELD | WAITING | TERMINAL
    assert not HELD & WAITING
    assert not (HELD | WAITING) & TERMINAL


def test_terminal_is_terminal() -> None:
    for state in JobState:
        assert state.terminal == (MOVES[state] == frozenset())


@pytest.mark.parametrize("state", sorted(set(JobState) - TERMINAL))
def test_every_live_state_can_end_in_every_way_and_go_back_to_the_queue(state: JobState) -> None:
    assert MOVES[state] >= TERMINAL
    assert JobState.QUEUED in reachable(state)
    assert reachable(state) == set(JobState)


def test_no_step_of_the_way_is_left_out() -> None:
    way = [
        JobState.QUEUED,
        JobState.RESOLVING,
        JobState.PLACED,
        JobState.FETCHING,
        JobState.LOADING,
        JobState.RUNNING,
    ]
    for at, state in enumerate(way):
        forward = {next_ for next_ in MOVES[state] - TERMINAL if next_ in way[at + 1 :]}
        kept = {JobState.PLACED} if state is JobState.QUEUED else set()
        assert forward - kept == set(way[at + 1 : at + 2])


def test_only_a_resident_that_is_gone_does_not_live() -> None:
    assert [state for state in ResidentState if not state.live] == [ResidentState.GONE]
