"""Where a control plane may listen: on loopback, unless a proxy in front decides who gets in."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address

from warmrack_store.errors import BadRequest, Contradiction, NotSupported
from warmrack_store.settings import Auth


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """The address of a control plane, as its command line says it."""

    host: str
    port: int
    behind_proxy: bool = False

    @property
    def url(self) -> str:
        """How this machine reaches it."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def options(self) -> list[str]:
        proxy = ["--behind-proxy"] if self.behind_proxy else []
        return ["--host", self.host, "--port", str(self.port), *proxy]


def check_access(auth: Auth, at: Listening) -> None:
    """Raise NotSupported for keys, Contradiction for an open address that nothing guards."""
    if auth is not Auth.OFF:
        raise NotSupported(
            f"auth {auth.value} is not served by this version",
            hint="Listen on loopback, or put a proxy that authenticates in front.",
        )
    loopback = all(ip_address(address).is_loopback for address in _addresses(at.host))
    if not at.behind_proxy and not loopback:
        raise Contradiction(
            f"auth off serves loopback only, and {at.host or 'every address'} is more than that",
            hint="Listen on 127.0.0.1 behind a proxy that authenticates; where nothing but such "
            "a proxy reaches the address, say --behind-proxy.",
        )


def check_port(at: Listening) -> None:
    """Raise BadRequest where somebody else listens there, or nobody may."""
    for address in _addresses(at.host):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, at.port))
            except OSError as error:
                raise BadRequest(
                    f"cannot listen on {address} port {at.port}: {error.strerror}",
                    hint="Stop what listens there, or choose another --port.",
                ) from error


def _addresses(host: str) -> set[str]:
    try:
        found = socket.getaddrinfo(
            host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise BadRequest(
            f"host {host!r} is no address of this machine: {error}", hint="Correct --host."
        ) from error
    return {str(address[0]).partition("%")[0] for *_, address in found}
