"""Submissions: what goes together, where it ends, and what may join what."""

from typing import Any

import pytest

from warmrack_store.errors import BadRequest, Contradiction, NotSupported
from warmrack_store.states import JobKind, Priority, Tier
from warmrack_store.submissions import Submission, parse_submission

TASK = {"kind": "task", "task": "generate", "payload": {"prompt": "hi"}}


def parse(**fields: Any) -> Submission:
    return parse_submission({"kind": "load", "request": {"model": "org/name"}, **fields})


@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({}, Tier.DEVICE),
        ({"tier": "device"}, Tier.DEVICE),
        ({"kind": "prefetch"}, Tier.DISK),
        ({"kind": "prefetch", "tier": "disk"}, Tier.DISK),
        (TASK, Tier.DEVICE),
    ],
)
def test_a_job_ends_at_the_tier_of_its_kind(fields: dict[str, Any], tier: Tier) -> None:
    assert parse(**fields).reached_tier is tier


def test_the_least_submission_is_a_normal_job_with_five_attempts() -> None:
    least = parse()
    assert (least.kind, least.priority, least.max_attempts) == (JobKind.LOAD, Priority.NORMAL, 5)
    assert [priority.rank for priority in Priority] == [0, 1, 2]


@pytest.mark.parametrize(
    ("nodes", "names"),
    [(None, None), ("1", None), ((), None), ("n0", ("n0",)), (["n0"], ("n0",)), (" n0 ", ("n0",))],
)
def test_nodes_are_named_or_left_to_the_pool(nodes: Any, names: tuple[str, ...] | None) -> None:
    assert parse(nodes=nodes).node_names() == names


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"kind": "task"}, Contradiction),
        ({"task": "generate"}, Contradiction),
        ({"payload": {}}, Contradiction),
        ({"tier": "disk"}, Contradiction),
        ({"kind": "prefetch", "tier": "device"}, Contradiction),
        ({"kind": "prefetch", "tier": "ram"}, NotSupported),
        ({"nodes": "all"}, NotSupported),
        ({"nodes": "2"}, NotSupported),
        ({"nodes": "n0,n1"}, NotSupported),
        ({"kind": "task", "task": "generate", "nodes": "all"}, NotSupported),
        ({"callback_url": "https://example.org"}, NotSupported),
        ({"request": {"model": "org/name", "attn": "sdpa"}}, NotSupported),
        ({"nodes": "../n0"}, BadRequest),
        ({"nodes": ["n 0"]}, BadRequest),
        ({"keep_alive": "31d"}, BadRequest),
        ({"keep_alive": "never"}, BadRequest),
        ({"timeout_seconds": 0}, BadRequest),
        ({"timeout_seconds": 8 * 86400}, BadRequest),
        ({"expires_at": "2030-01-01T00:00:00"}, BadRequest),
        ({"max_attempts": 101}, BadRequest),
        ({**TASK, "payload": {"x": float("nan")}}, BadRequest),
        ({**TASK, "payload": {"x": [1, {"y": float("-inf")}]}}, BadRequest),
        ({**TASK, "payload": []}, BadRequest),
        ({**TASK, "task": "a/b"}, BadRequest),
    ],
)
def test_what_does_not_go_together_is_refused(
    fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        parse(**fields)


@pytest.mark.parametrize(
    "fields", [{"priority": "interactive"}, {"keep_alive": "5m"}, {"timeout_seconds": 5.0}]
)
def test_how_a_job_is_run_does_not_keep_it_from_joining(fields: dict[str, Any]) -> None:
    assert parse(**fields).fingerprint() == parse().fingerprint()


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "prefetch"},
        {"nodes": "n0"},
        {"request": {"model": "org/other"}},
        {"request": {"model": "org/name", "revision": "v1"}},
        {"request": {"model": "org/name", "max_seq_length": 8}},
    ],
)
def test_other_work_is_another_fingerprint(fields: dict[str, Any]) -> None:
    assert parse(**fields).fingerprint() != parse().fingerprint()


def test_tasks_have_none() -> None:
    assert parse(**TASK).fingerprint() is None


def test_a_stored_submission_is_read_back_as_it_was() -> None:
    full = parse(**TASK, expires_at="2030-01-01T00:00:00+02:00", nodes=["n0"], keep_alive="pinned")
    assert parse_submission(full.model_dump(mode="json")) == full
