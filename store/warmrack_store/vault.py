"""What the cluster key protects: Hub tokens at rest, their marks, and the secrets drawn from it."""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from warmrack_store.cache.folders import sync_folder
from warmrack_store.errors import BadRequest

_MIN_KEY_BYTES = 32


class Vault:
    """Encrypts and marks tokens with keys derived from the one cluster key."""

    def __init__(self, key: bytes) -> None:
        self._encryption_key = base64.urlsafe_b64encode(_derive(key, b"encrypt"))
        self._mark_key = _derive(key, b"mark")
        self.node_token = _derive(key, b"node").hex()
        """What nodes and control planes show one another."""
        self.signing_seed = _derive(key, b"sign")
        """Of the key that signs receipts; derived, so that all of a cluster's control planes sign
        with the same one and there is no second secret to keep."""

    def encrypt(self, token: str) -> bytes:
        from cryptography.fernet import Fernet

        return Fernet(self._encryption_key).encrypt(token.encode())

    def decrypt(self, ciphertext: bytes) -> str:
        """Raises BadRequest when the ciphertext was made with another cluster key."""
        from cryptography.fernet import Fernet, InvalidToken

        try:
            return Fernet(self._encryption_key).decrypt(ciphertext).decode()
        except InvalidToken as error:
            raise BadRequest(
                "the stored Hub token was encrypted with another cluster key",
                hint="Give every node and control plane the same WARMRACK_CLUSTER_KEY_FILE.",
            ) from error

    def mark(self, token: str | None) -> str:
        """A name for a token that gives nothing away; `anonymous` for none."""
        if token is None:
            return "anonymous"
        return hmac.new(self._mark_key, token.encode(), hashlib.sha256).hexdigest()[:32]


def _derive(key: bytes, purpose: bytes) -> bytes:
    return hmac.new(key, b"warmrack." + purpose, hashlib.sha256).digest()


def read_vault(path: Path) -> Vault:
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
    return Vault(key)


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
