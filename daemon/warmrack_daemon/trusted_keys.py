"""The public keys of pools that this state directory knows: one PEM file each, named by key id."""

from collections.abc import Sequence
from pathlib import Path

from warmrack_store.envelopes import PublicKey

_FOLDER = "pool-keys"


def remember_key(state_dir: Path, key: PublicKey) -> Path | None:
    """Keep a key; None where it was known already."""
    place = state_dir / _FOLDER / f"{key.keyid}.pem"
    if place.exists():
        return None
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = place.with_suffix(".new")
    fresh.write_text(key.pem)
    fresh.replace(place)
    return place


def list_keys(state_dir: Path) -> Sequence[PublicKey]:
    """Raises BadRequest for a file that is no key."""
    files = sorted((state_dir / _FOLDER).glob("*.pem"))
    return [PublicKey.from_pem(path.read_bytes()) for path in files]
