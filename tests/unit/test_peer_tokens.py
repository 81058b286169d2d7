"""What one node shows another: for one repository, and not for long."""

import pytest

from warmrack_workers.mirror.peer_tokens import TTL_SECONDS, is_peer_token, make_peer_token

_KEY = "k" * 64
_NOW = 1_700_000_000.0


def test_token_opens_its_own_repository_while_it_lives() -> None:
    token = make_peer_token(_KEY, "org/name", _NOW)
    assert is_peer_token(token, _KEY, "org/name", _NOW + TTL_SECONDS - 1)
    assert not is_peer_token(token, _KEY, "org/name", _NOW + TTL_SECONDS + 1)
    assert not is_peer_token(token, _KEY, "org/other", _NOW)
    assert not is_peer_token(token, "x" * 64, "org/name", _NOW)


@pytest.mark.parametrize(
    "shown", ["", ".", "1.", "abc.def", "-5.x", f"{10**14}.x", "\u0661.x", "1.\u00e9"]
)
def test_text_that_is_no_token_opens_nothing(shown: str) -> None:
    assert not is_peer_token(shown, _KEY, "org/name", _NOW)


def test_token_of_a_far_future_is_refused_though_it_is_signed() -> None:
    token = make_peer_token(_KEY, "org/name", _NOW + 10 * TTL_SECONDS)
    assert not is_peer_token(token, _KEY, "org/name", _NOW)
