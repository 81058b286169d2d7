"""Laws of a hostile Hub: whatever it lists or heads, a file stays below its folder or is refused."""

import json
from datetime import UTC, datetime
from pathlib import PurePosixPath

from hypothesis import example, given
from hypothesis import strategies as st

from warmrack_store.errors import HubUnavailable, WarmrackError
from warmrack_store.hub_answers import MAX_FILE_BYTES, parse_ref, parse_tree_page
from warmrack_store.hub_errors import HubQuestion, error_of_status, find_wait_seconds
from warmrack_store.refs import ModelRef, is_commit

ASKED = HubQuestion(endpoint="https://hub", repository="org/name", revision="a" * 40, token=None)
REF = ModelRef(repository="org/name")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
_TRICKS = st.sampled_from(
    ["..", ".", "", "/etc", "\\", "a\0b", "C:", "\ud800", "x" * 256, "~", "%2e%2e", "é", "ok.bin"]
)
_PATHS = st.one_of(st.lists(_TRICKS, min_size=1, max_size=6).map("/".join), st.text(max_size=40))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
_OID = st.sampled_from(["a" * 40, "b" * 64, "../../x", "", "A" * 40, None])
_ENTRY = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["file", "directory", "symlink", "submodule"]),
        "path": _PATHS,
        "size": st.sampled_from([0, 1, -1, MAX_FILE_BYTES + 1, 1.5, "1", True, None]),
        "oid": _OID,
    },
    optional={"lfs": st.fixed_dictionaries({"oid": _OID, "size": st.just(3)})},
)
_HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "ratelimit", "x-error-code", "x-error-message", "etag"]),
    st.text(max_size=300),
)


@given(st.lists(_ENTRY, max_size=5) | _JSON)
@example([{"type": "file", "path": "../../x", "size": 1, "oid": "a" * 40}])
@example([{"type": "file", "path": "/etc/passwd", "size": 1, "oid": "a" * 40}])
def test_a_listing_gives_files_below_the_folder_or_is_refused(listing: object) -> None:
    body = json.dumps(listing).encode()
    try:
        found = list(parse_tree_page(body, ASKED))
    except HubUnavailable:
        return
    for file in found:
        path = PurePosixPath(file.path)
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert "\0" not in file.path
        assert "\\" not in file.path
        assert all(0 < len(part.encode()) <= 255 for part in path.parts)
        assert 0 <= file.size <= MAX_FILE_BYTES
        assert len(file.digest) in (40, 64)
        assert set(file.digest) <= set("0123456789abcdef")


@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
def test_an_answer_about_a_name_is_a_pinned_commit_or_nonsense(body: bytes) -> None:
    try:
        found = parse_ref(body, REF, ASKED)
    except HubUnavailable:
        return
    assert is_commit(found.commit)


@given(st.integers(100, 999), _HEADERS, st.booleans())
def test_any_status_with_any_headers_is_an_error_of_ours_of_bounded_length(
    status: int, headers: dict[str, str], from_hub: bool
) -> None:
    error = error_of_status(status, headers, ASKED, from_hub=from_hub, now=NOW)
    assert isinstance(error, WarmrackError)
    assert len(error.message) < 1000
    assert error.retry_after_seconds is None or 0 <= error.retry_after_seconds <= 3600


@given(_HEADERS)
@example({"retry-after": "9" * 5000})
@example({"ratelimit": "r=0;t=" + "9" * 5000})
def test_a_wait_that_the_hub_asks_for_is_an_hour_at_most(headers: dict[str, str]) -> None:
    seconds = find_wait_seconds(headers, NOW)
    assert seconds is None or 0 <= seconds <= 3600
