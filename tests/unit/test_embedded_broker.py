"""The embedded broker's secrets on disk."""

import stat
from pathlib import Path

from warmrack_daemon.embedded_broker import EmbeddedBroker


def test_password_is_kept_and_its_owners_alone(tmp_path: Path) -> None:
    passwords = {EmbeddedBroker(tmp_path).url.split("@")[0] for _ in range(2)}
    assert len(passwords) == 1
    path = tmp_path / "valkey" / "password"
    assert path.read_text() in passwords.pop()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_empty_password_of_a_crash_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey" / "password").touch()
    assert "redis://:@" not in EmbeddedBroker(tmp_path).url
