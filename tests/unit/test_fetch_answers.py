"""What an answer of the Hub means, and when to ask again."""

from datetime import UTC, datetime
from typing import Any

import pytest

from warmrack_store import errors
from warmrack_workers.fetch.hub_answers import error_of_answer, find_wait_seconds
from warmrack_workers.fetch.patience import Patience

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def make_error(status: int, code: str = "", *, from_hub: bool = True, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_of_answer(
        status, {"x-error-code": code, **sent}, what="a/b/c.json", from_hub=from_hub, now=NOW
    )


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "GatedRepo", errors.Gated),
        (403, "GatedRepo", errors.Gated),
        (401, "RepoNotFound", errors.RepoNotFound),
        (404, "RepoNotFound", errors.RepoNotFound),
        (404, "RevisionNotFound", errors.RevisionNotFound),
        (404, "EntryNotFound", errors.NotFound),
        (404, "", errors.NotFound),
        (401, "", errors.Unauthorized),
        (403, "", errors.Unauthorized),
        (416, "", errors.Integrity),
        (429, "", errors.RateLimited),
        (408, "", errors.HubUnavailable),
        (500, "", errors.HubUnavailable),
        (503, "", errors.HubUnavailable),
        (418, "", errors.HubUnavailable),
    ],
)
def test_each_refusal_of_the_hub_has_its_error(status: int, code: str, kind: type) -> None:
    assert type(make_error(status, code)) is kind


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_content_networks_refusal_is_tried_again_with_a_new_address(status: int) -> None:
    assert make_error(status, from_hub=False).retryable


def test_the_message_names_the_file_the_status_and_what_the_hub_said() -> None:
    message = make_error(403, x_error_message="Access is disabled").message
    assert message == "a/b/c.json: HTTP 403, Access is disabled"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 400}, 3600.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -0900"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_from_either_header(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert find_wait_seconds(headers, NOW) == seconds


def test_a_busy_hub_says_when_to_ask_again() -> None:
    assert make_error(429, retry_after="9").retry_after_seconds == 9
    assert make_error(503, retry_after="9").retry_after_seconds == 9


def test_delays_double_with_jitter_over_their_upper_half() -> None:
    patience = Patience(tries=5, first_seconds=1.0)
    assert [patience.find_delay_seconds(n, None, 0.0) for n in range(1, 6)] == [0.5, 1, 2, 4, None]
    assert patience.find_delay_seconds(3, None, 0.5) == 3.0


def test_what_the_hub_asks_for_is_waited_unless_it_is_too_long() -> None:
    patience = Patience(longest_seconds=60.0)
    assert patience.find_delay_seconds(1, 20.0, 0.9) == 20.0
    assert patience.find_delay_seconds(1, 61.0, 0.9) is None
