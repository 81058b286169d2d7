"""The Hub that a model's URL names, held against the one that is asked."""

from urllib.parse import urlsplit

from warmrack_store.errors import BadRequest
from warmrack_store.requests import LoadRequest

_PUBLIC_HOSTS = frozenset({"huggingface.co", "hf.co"})
"""A page there stands for the same name at whichever Hub is asked: a mirror of it, mostly."""


def check_hub(request: LoadRequest, endpoint: str) -> None:
    """Raise BadRequest for a URL of another Hub: nothing would be fetched from it."""
    asked = _find_host(endpoint)
    for spelling in (request.model, request.adapter, request.adapter_base):
        host = _find_host(spelling or "")
        if host is not None and host not in _PUBLIC_HOSTS | {asked}:
            raise BadRequest(
                f"model {spelling!r:.200} is at {host}, and this service asks {asked}",
                hint="Give org/name alone, or use a service whose WARMRACK_HUB_ENDPOINT is there.",
            )


def _find_host(spelling: str) -> str | None:
    url = spelling.strip()
    if not url.startswith(("http://", "https://")):
        return None
    return urlsplit(url).netloc.rpartition("@")[2].lower()
