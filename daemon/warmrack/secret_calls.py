"""Conversations about stored Hub tokens."""

from warmrack.answers import read_json
from warmrack.pages import check_page
from warmrack.paths import quote_name
from warmrack.steps import API, Call, Conversation, send


def list_secrets() -> Conversation[tuple[str, ...]]:
    """The names of the stored tokens."""
    answer = yield from send(Call(method="GET", path=f"{API}/secrets"))
    return tuple(str(item["name"]) for item in check_page(read_json(answer))["items"])


def put_secret(name: str, token: str) -> Conversation[None]:
    """Store a Hub token under a name that requests give as `hub_secret`."""
    path = f"{API}/secrets/{quote_name(name, 'name')}"
    yield from send(Call(method="PUT", path=path, body={"token": token}))


def delete_secret(name: str) -> Conversation[None]:
    """Forget a stored token."""
    path = f"{API}/secrets/{quote_name(name, 'name')}"
    yield from send(Call(method="DELETE", path=path))


def rotate_secrets() -> Conversation[int]:
    """Encrypt every stored token with the newest key; how many there were."""
    answer = yield from send(Call(method="POST", path=f"{API}/secrets/rotate"))
    return int(read_json(answer)["renewed"])
