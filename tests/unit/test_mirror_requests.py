"""What the mirror makes of a request line, a head and a Range header."""

import pytest

from warmrack_store.errors import Gated, HubUnavailable, RepoNotFound
from warmrack_workers.mirror.calls import Malformed, parse_call
from warmrack_workers.mirror.ranges import find_range
from warmrack_workers.mirror.refusals import Refused, refusal_of
from warmrack_workers.mirror.targets import Kind, parse_target

_SHA = "0" * 39 + "1"


@pytest.mark.parametrize(
    ("text", "kind", "revision", "path"),
    [
        ("/api/models/org/name", Kind.MODEL, "main", ""),
        ("/api/models/org/name/revision/refs%2Fpr%2F1", Kind.MODEL, "refs/pr/1", ""),
        (f"/api/models/org/name/tree/{_SHA}?recursive=true", Kind.TREE, _SHA, ""),
        ("/api/models/org/name/tree/main/a/b", Kind.TREE, "main", "a/b"),
        ("/api/models/org/name/auth-check", Kind.RIGHT, "main", ""),
        ("/org/name/resolve/main/a/b%20c.json", Kind.FILE, "main", "a/b c.json"),
        (f"/.warmrack/blobs/org/name/{_SHA}", Kind.BLOB, "main", _SHA),
    ],
)
def test_hub_paths_are_read_as_a_hub_reads_them(
    text: str, kind: Kind, revision: str, path: str
) -> None:
    target = parse_target(text)
    assert (target.kind, target.repository) == (kind, "org/name")
    assert (target.revision, target.path) == (revision, path)


@pytest.mark.parametrize(
    "text",
    [
        "/org/name/resolve/main/../../secret",
        "/org/name/resolve/main/%2e%2e/%2e%2e/secret",
        "/org/name/resolve/main/%2Fetc%2Fpasswd",
        "/org/name/resolve/main/a%00b",
        "/org/name/resolve/main/a%5C..%5Cb",
        "/org/name/resolve/..%2F..%2Fx/config.json",
        "/org/name/resolve/main/%ff",
        "/../name/resolve/main/config.json",
        "/org%2F..%2Fother/name/resolve/main/config.json",
        "/.warmrack/blobs/org/name/abc",
        "/api/models/org/name/tree/main/%2e%2e",
        "/api/datasets/org/name",
        "/",
    ],
)
def test_path_that_would_leave_its_place_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_target(text)
    assert caught.value.status in (400, 404)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-5", (95, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=0-1,5-6", None),
        ("bytes=9-2", None),
        ("bytes=-", None),
        ("lines=0-1", None),
    ],
)
def test_range_header_names_a_part_or_else_the_whole_is_sent(
    header: str | None, span: tuple[int, int] | None
) -> None:
    assert find_range(header, 100) == span


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_range_behind_the_end_is_416_with_the_size(header: str) -> None:
    with pytest.raises(Refused) as caught:
        find_range(header, 100)
    assert caught.value.status == 416
    assert caught.value.headers["Content-Range"] == "bytes */100"


@pytest.mark.parametrize(
    "head",
    [
        b"POST /a/b HTTP/1.1",
        b"GET  /a/b HTTP/1.1",
        b"GET /a\x01b HTTP/1.1",
        b"GET /a HTTP/1.1\r\ncontent-length: 5",
        b"GET /a HTTP/1.1\r\ntransfer-encoding: chunked",
        b"GET /a HTTP/1.1\r\nname : x",
        b"GET /a HTTP/1.1\r\n" + b"\r\n".join([b"a: b"] * 101),
        b"\xff\xfe",
    ],
)
def test_head_that_is_no_plain_request_is_malformed(head: bytes) -> None:
    with pytest.raises(Malformed):
        parse_call(head)


def test_header_values_of_a_refusal_are_one_line_whatever_the_message_holds() -> None:
    headers = Refused(404, "EntryNotFound", "a\r\nSet-Cookie: b\u2603" + "x" * 999).list_headers()
    assert "\r" not in headers["X-Error-Message"]
    assert headers["X-Error-Message"].isascii()
    assert len(headers["X-Error-Message"]) <= 300


def test_our_errors_get_the_hubs_own_status_and_code() -> None:
    def told(error: RepoNotFound | Gated | HubUnavailable, *, anonymous: bool) -> object:
        refused = refusal_of(error, anonymous=anonymous)
        return refused.status, refused.code

    assert told(Gated("x"), anonymous=True) == (401, "GatedRepo")
    assert told(Gated("x"), anonymous=False) == (403, "GatedRepo")
    assert told(RepoNotFound("x"), anonymous=False) == (404, "RepoNotFound")
    assert told(HubUnavailable("x"), anonymous=True) == (503, None)
