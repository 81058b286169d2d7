"""What the Hub's refusals become, by its status and headers."""

from datetime import UTC, datetime

import pytest

from warmrack_store import errors
from warmrack_store.facts import FileFact
from warmrack_store.hub_answers import has_digest, parse_config, parse_ref, parse_tree_page
from warmrack_store.hub_errors import HubQuestion, error_of_status, find_wait_seconds
from warmrack_store.refs import ModelRef

HUB = "https://hub.example"
SHA = "0123456789abcdef0123456789abcdef01234567"


NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def asked(token: str | None = None, file: str | None = None) -> HubQuestion:
    return HubQuestion(endpoint=HUB, repository="org/name", revision="main", token=token, file=file)


def refusal(
    status: int, token: str | None = None, from_hub: bool = True, **headers: str
) -> tuple[errors.WarmrackError, type[errors.WarmrackError]]:
    """Our error for an answer; a header's name is written with underscores here."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    question = asked(token, "config.json")
    error = error_of_status(status, told, question, from_hub=from_hub, now=NOW)
    return error, type(error)


@pytest.mark.parametrize(
    ("status", "token", "headers", "expected"),
    [
        (401, None, {"x_error_code": "RepoNotFound"}, errors.RepoNotFound),
        (404, "hf_x", {"x_error_code": "RepoNotFound"}, errors.RepoNotFound),
        (404, None, {}, errors.RepoNotFound),
        (401, None, {}, errors.RepoNotFound),
        (401, "hf_x", {"x_error_message": "Invalid username or password."}, errors.Unauthorized),
        (
            401,
            "hf_x",
            {"x_error_message": "Invalid credentials in Authorization header"},
            errors.Unauthorized,
        ),
        (403, "hf_x", {"x_error_message": "the token lacks a scope"}, errors.Unauthorized),
        (401, None, {"x_error_code": "GatedRepo"}, errors.Gated),
        (403, "hf_x", {"x_error_code": "GatedRepo"}, errors.Gated),
        (404, None, {"x_error_code": "RevisionNotFound"}, errors.RevisionNotFound),
        (
            403,
            None,
            {"x_error_message": "Access to this resource is disabled."},
            errors.RepoNotFound,
        ),
        (429, None, {}, errors.RateLimited),
        (408, None, {}, errors.HubUnavailable),
        (500, None, {}, errors.HubUnavailable),
        (503, None, {}, errors.HubUnavailable),
        (404, None, {"x_error_code": "EntryNotFound"}, errors.HubUnavailable),
        (400, None, {}, errors.BadRequest),
        (418, None, {}, errors.BadRequest),
        (410, None, {}, errors.RepoNotFound),
        (416, None, {}, errors.Integrity),
        (304, None, {}, errors.HubUnavailable),
    ],
)
def test_each_refusal_of_the_hub_has_its_error(
    status: int,
    token: str | None,
    headers: dict[str, str],
    expected: type[errors.WarmrackError],
) -> None:
    error, kind = refusal(status, token, True, **headers)
    assert kind is expected
    assert "hf_x" not in error.message + error.hint


def test_a_gated_refusal_names_the_page_to_accept() -> None:
    error, _kind = refusal(403, "hf_x", x_error_code="GatedRepo")
    assert f"{HUB}/org/name" in error.hint


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17.0),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3.0),
        ({"retry-after": "9" * 400}, 3600.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -0900"}, None),
        ({"ratelimit": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_from_either_header(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert find_wait_seconds(headers, NOW) == seconds


def test_a_busy_hub_says_when_to_ask_again() -> None:
    assert refusal(429, retry_after="9")[0].retry_after_seconds == 9
    assert refusal(503, retry_after="9")[0].retry_after_seconds == 9


def test_the_message_names_the_file_the_status_and_what_the_hub_said() -> None:
    message = refusal(403, x_error_message="no scope")[0].message
    assert all(part in message for part in ("org/name/config.json", "HTTP 403", "no scope"))


def test_a_token_that_cannot_be_sent_is_refused_without_showing_it() -> None:
    for token in ("hf_secret\r\nX: y", "hf_sécret", "hf secret"):
        with pytest.raises(errors.Unauthorized) as caught:
            asked(token)
        assert "cret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_content_networks_refusal_says_nothing_about_rights(status: int) -> None:
    assert refusal(status, "hf_x", from_hub=False)[1] is errors.HubUnavailable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b'{"id": "org/name"}',
        b'{"id": "../name", "sha": "%s", "private": false, "gated": false}' % SHA.encode(),
        b'{"id": "org/name", "sha": "../../x", "private": false, "gated": false}',
        b'{"id": "org/name", "sha": 7, "private": false, "gated": false}',
        b'{"id": "org/name", "sha": "%s", "private": null, "gated": false}' % SHA.encode(),
        b'{"id": "org/name", "sha": "%s", "private": false, "gated": "x"}' % SHA.encode(),
    ],
)
def test_a_description_that_makes_no_sense_is_the_hubs_fault(body: bytes) -> None:
    with pytest.raises(errors.HubUnavailable, match="nonsense"):
        parse_ref(body, ModelRef(repository="org/name"), asked())


def test_another_commit_than_the_one_asked_for_is_nonsense() -> None:
    body = f'{{"id": "org/name", "sha": "{SHA}", "private": false, "gated": "auto"}}'.encode()
    assert parse_ref(body, ModelRef(repository="org/name"), asked()).gated
    other = ModelRef(repository="org/name", revision="f" * 40)
    with pytest.raises(errors.HubUnavailable, match="nonsense"):
        parse_ref(body, other, asked())


@pytest.mark.parametrize(
    "entry",
    [
        '{"type": "file", "path": "../x", "size": 1, "oid": "%s"}',
        '{"type": "file", "path": "/x", "size": 1, "oid": "%s"}',
        '{"type": "file", "path": "x", "size": -1, "oid": "%s"}',
        '{"type": "file", "path": "x", "size": "1", "oid": "%s"}',
        '{"type": "file", "path": "x", "size": 1, "oid": "%s0"}',
        '{"type": "file", "path": "x", "size": 1, "oid": "%s", "lfs": {"oid": "..", "size": 1}}',
        '{"type": "file", "path": "x", "size": 1, "oid": "%s", "lfs": 3}',
        '{"path": "x"}',
        "3",
    ],
)
def test_a_tree_entry_that_makes_no_sense_is_the_hubs_fault(entry: str) -> None:
    body = f"[{entry.replace('%s', SHA)}]".encode()
    with pytest.raises(errors.HubUnavailable, match="nonsense"):
        list(parse_tree_page(body, asked()))


def test_a_config_is_an_object_or_a_reason() -> None:
    assert parse_config(b'{"a": 1}') == ({"a": 1}, None)
    for body in (b"", b"[]", b"\xff", b'{"a": "\\u0000"}', b'{"a": "\\ud800"}', b"[" * 100_000):
        config, reason = parse_config(body)
        assert config is None
        assert reason


def test_numbers_that_sql_cannot_store_become_texts() -> None:
    body = b'{"a": Infinity, "b": -Infinity, "c": NaN, "d": 1e999, "e": 0.5}'
    expected = {"a": "Infinity", "b": "-Infinity", "c": "NaN", "d": "1e999", "e": 0.5}
    assert parse_config(body) == (expected, None)


def test_a_small_file_is_known_by_its_git_digest() -> None:
    # `printf hello | git hash-object --stdin`
    hello = FileFact(path="x", size=5, git_sha1="b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0")
    assert has_digest(b"hello", hello)
    assert not has_digest(b"hellO", hello)
