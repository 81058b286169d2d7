"""What one node shows to another to read one repository's bytes, for a short time; pure.

Never a user's token: whether the caller may read was checked where the job runs, before the fetch.
"""

import hashlib
import hmac

HEADER = "x-warmrack-peer"
TTL_SECONDS = 300.0
_MOST_SECONDS = 2 * TTL_SECONDS
"""A token from the future is of a clock that is wrong by more than anybody's should be."""


def make_peer_token(node_token: str, repository: str, now: float) -> str:
    """`node_token` is the cluster's own secret; `now` in epoch seconds."""
    until = int(now + TTL_SECONDS)
    return f"{until}.{_sign(node_token, repository, until)}"


def is_peer_token(shown: str, node_token: str, repository: str, now: float) -> bool:
    until, _, signature = shown.partition(".")
    if not until.isascii() or not until.isdigit() or len(until) > 15 or not signature.isascii():
        return False
    right = hmac.compare_digest(signature, _sign(node_token, repository, int(until)))
    return right and now <= int(until) <= now + _MOST_SECONDS


def _sign(node_token: str, repository: str, until: int) -> str:
    text = f"warmrack.peer|{repository}|{until}"
    return hmac.new(node_token.encode(), text.encode(), hashlib.sha256).hexdigest()
