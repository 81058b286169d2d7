"""Ids of rows: a prefix that says what they name, then time and chance, so that they sort by age."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """For example `job_0k3v9q2m7t5w8x1y4z6b`: 9 characters of milliseconds, 10 of chance."""
    number = (int(time.time() * 1000) << 50) | secrets.randbits(50)
    text = ""
    for _ in range(19):
        number, digit = divmod(number, 32)
        text = _ALPHABET[digit] + text
    return f"{prefix}_{text}"
