"""How the service is reached: its address, the caller's keys and what a broken line means."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import httpx

from warmrack.steps import Answer, Call
from warmrack_store.errors import BadRequest, Unreachable
from warmrack_store.settings import load_settings

_CONNECT_SECONDS = 5.0
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_URL_HINT = "Set WARMRACK_URL to an address such as http://127.0.0.1:8420."
_IDLE = 32
"""Connections kept for the next call; as many as are wanted may be open: each waits for a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Everything a transport needs to know; `timeout_seconds` is the service's longest silence."""

    url: str
    api_key: str | None
    hub_token: str | None
    operator_token: str | None
    timeout_seconds: float

    @property
    def options(self) -> dict[str, Any]:
        """What httpx's clients are made with; proxies stay out of loopback traffic."""
        return {
            "base_url": self.url,
            "headers": self._headers(),
            "timeout": self._timeout(self.timeout_seconds),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=_IDLE),
            "trust_env": not _is_loopback(httpx.URL(self.url).host),
        }

    def request(self, call: Call) -> dict[str, Any]:
        """What httpx's `build_request` is called with."""
        return {
            "method": call.method,
            "url": call.path,
            "params": dict(call.params) or None,
            "json": call.body,
            "headers": dict(call.headers),
            "timeout": self._timeout(call.timeout_seconds or self.timeout_seconds),
        }

    def unreachable(self, error: httpx.RequestError) -> Unreachable:
        """A broken line as the tree's error, with httpx's own as its cause."""
        broken = Unreachable(f"{self.url} does not answer: {error or type(error).__name__}")
        broken.__cause__ = error
        return broken

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if self.hub_token is not None:
            headers["X-Hub-Token"] = self.hub_token
        if self.operator_token is not None:
            headers["X-Operator-Token"] = self.operator_token
        return headers

    @staticmethod
    def _timeout(seconds: float) -> httpx.Timeout:
        return httpx.Timeout(seconds, connect=_CONNECT_SECONDS)


def make_connection(
    url: str | None, api_key: str | None, hub_token: str | None, timeout_seconds: float
) -> Connection:
    """The connection as given, the rest from the settings; BadRequest where one is no setting."""
    flags = {"url": url, "api_key": api_key, "hub_token": hub_token}
    settings = load_settings(flags=flags)
    check_url(settings.url)
    for name in ("api_key", "hub_token", "operator_token"):
        key = getattr(settings, name) or ""
        if not (key.isascii() and key.isprintable()):
            hint = f"Look at WARMRACK_{name.upper()}: a key is letters, digits and signs of ASCII."
            raise BadRequest(f"{name} holds characters that no header may hold", hint=hint)
    return Connection(
        url=settings.url,
        api_key=settings.api_key,
        hub_token=settings.hub_token,
        operator_token=settings.operator_token,
        timeout_seconds=timeout_seconds,
    )


def check_url(url: str) -> None:
    """BadRequest for what is not an absolute http:// or https:// address."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadRequest(f"url: {url!r} is not an address: {error}", hint=_URL_HINT) from error
    if parsed.scheme not in {"http", "https"} or not _HOST.fullmatch(parsed.raw_host.decode()):
        raise BadRequest(f"url: {url!r} is not an http:// or https:// address", hint=_URL_HINT)


def answer_of(response: httpx.Response, *, body: bytes) -> Answer:
    return Answer(
        url=str(response.url),
        status=response.status_code,
        headers={name.lower(): value for name, value in response.headers.items()},
        body=body,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
