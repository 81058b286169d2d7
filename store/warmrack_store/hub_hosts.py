"""Which addresses may be asked in a Hub's name: its own and those it may redirect to; pure."""

from collections.abc import Collection
from urllib.parse import urlsplit

from warmrack_store.errors import HubUnavailable

PUBLIC_HUB_HOST = "huggingface.co"
CONTENT_NETWORKS = (".huggingface.co", ".hf.co")
"""Where the public Hub itself redirects downloads to (cdn-lfs, cas-bridge, us.aws.cdn, ...)."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_PORTS = {"http": 80, "https": 443}


def may_ask(url: str, home: str, allowed: Collection[str]) -> bool:
    """Whether `url` is of the Hub at `home`, of the public Hub's content networks, or of a host
    that the operator names (`host` or `host:port`).

    By https; plain http is for a Hub on this machine and for hosts that the operator names.
    """
    try:
        asked, hub = urlsplit(url), urlsplit(home)
        port = asked.port or _PORTS.get(asked.scheme)
    except ValueError:
        return False
    host = asked.hostname or ""
    if asked.scheme not in _PORTS or asked.username is not None or asked.password is not None:
        return False
    if host in allowed or f"{host}:{port}" in allowed:
        return True
    if asked.scheme == "http" and not (hub.scheme == "http" and host in _LOOPBACK):
        return False
    content = hub.hostname == PUBLIC_HUB_HOST and host.endswith(CONTENT_NETWORKS)
    return content or host == hub.hostname


def is_same_origin(url: str, home: str) -> bool:
    """Whether scheme, host and port are the Hub's own, so that it may see its token."""
    return _origin(url) == _origin(home)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def check_address(url: str, home: str, allowed: Collection[str]) -> None:
    """Raise HubUnavailable, which names no path (it may be signed), where `url` may not be asked."""
    if may_ask(url, home, allowed):
        return
    raise HubUnavailable(
        f"the Hub at {home} leads to {_show_origin(url)}, which is not allowed",
        hint="Reach the Hub by https (plain http is for one on this machine); hosts besides its "
        "own are listed in WARMRACK_HUB_ENDPOINTS_ALLOWED.",
    )


def _show_origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "no address"
    return f"{parts.scheme}://{parts.hostname or ''}"
