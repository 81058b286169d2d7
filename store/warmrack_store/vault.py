"""What the cluster key protects: Hub tokens at rest, their marks, and the secrets drawn from it."""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from warmrack_store.cache.folders import sync_folder
from warmrack_store.errors import BadRequest
from warmrack_store.settings import Settings

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_MIN_KEY_BYTES = 32


class Vault:
    """Encrypts tokens with the newest secret key, and marks them with the cluster key.

    Where there is no secret key of its own, one is derived from the cluster key, which also opens
    what was encrypted before there was one.
    """

    def __init__(self, key: bytes, secret_keys: Sequence[bytes] = ()) -> None:
        keys = [*secret_keys, key]
        self._encryption_keys = [base64.urlsafe_b64encode(_derive(one, b"encrypt")) for one in keys]
        self._mark_key = _derive(key, b"mark")
        self.node_token = _derive(key, b"node").hex()
        """What nodes and control planes show one another."""
        self.signing_seed = _derive(key, b"sign")
        """Of the key that signs receipts; derived, so that all of a cluster's control planes sign
        with the same one and there is no second secret to keep."""

    def encrypt(self, token: str) -> bytes:
        return self._fernet().encrypt(token.encode())

    def decrypt(self, ciphertext: bytes) -> str:
        """Raises BadRequest when the ciphertext was made with a key that is not here."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet().decrypt(ciphertext).decode()
        except InvalidToken as error:
            raise BadRequest(
                "the stored Hub token was encrypted with another cluster key or secret key",
                hint="Give every node and control plane the same WARMRACK_CLUSTER_KEY_FILE and "
                "WARMRACK_SECRET_KEYS_FILE.",
            ) from error

    def renew(self, ciphertext: bytes) -> bytes:
        """The same token encrypted with the newest key; raises BadRequest as `decrypt` does."""
        return self.encrypt(self.decrypt(ciphertext))

    def _fernet(self) -> "MultiFernet":
        from cryptography.fernet import Fernet, MultiFernet

        return MultiFernet([Fernet(key) for key in self._encryption_keys])

    def mark(self, token: str | None) -> str:
        """A name for a token that gives nothing away; `anonymous` for none."""
        if token is None:
            return "anonymous"
        return hmac.new(self._mark_key, token.encode(), hashlib.sha256).hexdigest()[:32]


def _derive(key: bytes, purpose: bytes) -> bytes:
    return hmac.new(key, b"warmrack." + purpose, hashlib.sha256).digest()


def open_vault(settings: Settings) -> Vault:
    """The vault that the settings name: the cluster key, and secret keys by file or environment.

    Raises BadRequest where a key is missing or too short.
    """
    assert settings.cluster_key_file is not None
    held = ""
    if settings.secret_keys_file is not None:
        try:
            held = settings.secret_keys_file.read_text()
        except OSError as error:
            raise BadRequest(
                f"cannot read {settings.secret_keys_file}: {error.strerror}",
                hint="WARMRACK_SECRET_KEYS_FILE holds one key a line, the newest first.",
            ) from error
    elif settings.secret_keys is not None:
        held = settings.secret_keys.replace(",", "\n")
    keys = [line.strip().encode() for line in held.splitlines() if line.strip()]
    if any(len(key) < _MIN_KEY_BYTES for key in keys):
        raise BadRequest(f"a secret key is shorter than {_MIN_KEY_BYTES} characters")
    return read_vault(settings.cluster_key_file, keys)


def read_vault(path: Path, secret_keys: Sequence[bytes] = ()) -> Vault:
    """The vault of a cluster key file; BadRequest where it is missing or too short."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise BadRequest(
            f"cannot read the cluster key file {path}: {error.strerror}",
            hint="Set WARMRACK_CLUSTER_KEY_FILE to a file with at least 32 random characters.",
        ) from error
    if len(key) < _MIN_KEY_BYTES:
        raise BadRequest(f"the cluster key in {path} is shorter than {_MIN_KEY_BYTES} characters")
    return Vault(key, secret_keys)


def ensure_key_file(path: Path) -> None:
    """Make a random cluster key, readable by its owner only, where there is none."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_secret(path, secrets.token_hex(32) + "\n")


def write_secret(path: Path, text: str) -> None:
    """Write a file that its owner alone reads; it is there whole or not at all, however this ends."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
    sync_folder(path.parent)
