"""The head of a relayed request: what passes, what is changed on the way, what is refused."""

import pytest

from warmrack_store.errors import BadRequest
from warmrack_workers.ingress import Refused, check_head, split_address

TOKEN = b"cluster-token"
HEAD = (
    b"POST /hosts/res_1/tasks/generate HTTP/1.1\r\nHost: node\r\n"
    b"X-Warmrack-Node-Token: cluster-token\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n"
)


def test_head_reaches_the_host_without_token_and_for_one_request_only() -> None:
    seat_id, forwarded = check_head(HEAD, TOKEN)
    assert seat_id == "res_1"
    assert forwarded == (
        b"POST /tasks/generate HTTP/1.1\r\nHost: node\r\nContent-Length: 2\r\n"
        b"connection: close\r\n\r\n"
    )


@pytest.mark.parametrize("token", [b"another-token", b"", b"cluster-token2"])
def test_wrong_token_is_forbidden(token: bytes) -> None:
    with pytest.raises(Refused, match="403"):
        check_head(HEAD.replace(b"cluster-token", token), TOKEN)


def test_missing_token_is_forbidden() -> None:
    lines = [line for line in HEAD.split(b"\r\n") if not line.startswith(b"X-Warmrack")]
    with pytest.raises(Refused, match="403"):
        check_head(b"\r\n".join(lines), TOKEN)


@pytest.mark.parametrize(
    "line",
    [
        b"DELETE /hosts/res_1/drain HTTP/1.1",
        b"POST /hosts/../etc/tasks HTTP/1.1",
        b"POST /hosts/res_1 HTTP/1.1",
        b"POST /tasks/generate HTTP/1.1",
        b"POST /hosts/res_1/tasks/x HTTP/1.0",
        b"\x16\x03\x01",
    ],
)
def test_request_that_is_not_ours_is_refused(line: bytes) -> None:
    head = HEAD.replace(b"POST /hosts/res_1/tasks/generate HTTP/1.1", line)
    with pytest.raises(Refused, match="400"):
        check_head(head, TOKEN)


@pytest.mark.parametrize("field", [b"Transfer-Encoding : chunked", b" folded", b"no-colon"])
def test_field_that_two_servers_could_read_differently_is_refused(field: bytes) -> None:
    head = HEAD.replace(b"Host: node", field)
    with pytest.raises(Refused, match="400"):
        check_head(head, TOKEN)


def test_address_needs_a_host_and_a_port() -> None:
    assert split_address("127.0.0.1:8421") == ("127.0.0.1", 8421)
    assert split_address("[::1]:0") == ("::1", 0)
    for bad in ("8421", "host", "host:port", "host:99999"):
        with pytest.raises(BadRequest):
            split_address(bad)
