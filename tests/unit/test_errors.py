"""The error tree: codes, branches, records and the way through a pickle."""

import inspect
import pickle

import pytest

from warmrack_store import errors
from warmrack_store.errors import Defect, Ended, Proof, Refusal, Transient, WarmrackError, leaves

KINDS = list(leaves())


def test_every_class_of_the_module_is_in_the_tree_with_a_code_of_its_own() -> None:
    defined = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, WarmrackError) and kind is not WarmrackError
    }
    assert defined <= set(KINDS)
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code and "_" not in code for code in codes)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_the_branch_decides_what_happens_next(kind: type[WarmrackError]) -> None:
    branches = [
        branch for branch in (Refusal, Transient, Ended, Defect) if issubclass(kind, branch)
    ]
    assert len(branches) == 1
    assert kind.retryable == (branches == [Transient])
    if issubclass(kind, Refusal):
        assert 400 <= kind.status < 500
        assert kind.exit_code in ((5,) if issubclass(kind, Proof) else (2, 3))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_a_record_gives_the_same_error_back(kind: type[WarmrackError]) -> None:
    error = kind("what", hint="what next")
    again = WarmrackError.from_record(error.to_record())
    assert type(again) is kind
    assert again.to_record() == error.to_record()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_a_problem_document_gives_the_same_error_back(kind: type[WarmrackError]) -> None:
    problem = kind("what", hint="what next").to_problem()
    assert problem["type"] == f"urn:warmrack:error:{kind.code}"
    assert (problem["status"], problem["detail"]) == (kind.status, "what")
    again = WarmrackError.from_problem(problem)
    assert (type(again), again.message, again.hint) == (kind, "what", "what next")


def test_a_cold_models_problem_names_the_load() -> None:
    assert errors.ModelCold("cold", job="job_1").to_problem()["job"] == "job_1"
    assert "job" not in errors.ModelCold("cold").to_problem()


@pytest.mark.parametrize(("retryable", "kind"), [(True, Transient), (False, Defect)])
def test_a_code_of_a_newer_service_becomes_its_branch(
    retryable: bool, kind: type[WarmrackError]
) -> None:
    error = WarmrackError.from_record({"code": "new", "message": "m", "retryable": retryable})
    assert type(error) is kind
    assert WarmrackError.from_record({}).message == ""


def test_an_error_survives_a_pickle_with_all_that_it_says() -> None:
    for kind in KINDS:
        error = kind("what", hint="what next", retry_after_seconds=3.0)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.args, vars(again)) == (kind, ("what",), vars(error))
    cold = pickle.loads(pickle.dumps(errors.ModelCold("cold", job="j")))
    assert cold.job == "j"


def test_a_hint_is_the_classs_unless_one_is_given() -> None:
    assert errors.Gated("x").hint == errors.Gated.hint
    assert errors.Gated("x", hint="").hint == ""
    assert errors.RateLimited("x", retry_after_seconds=3.0).retry_after_seconds == 3.0
