"""Durations and sizes as people write them: 90s, 10m, 4GiB."""

import re
from decimal import Decimal

from warmrack_store.errors import BadRequest

PINNED = "pinned"
"""The keep-alive of a model that stays until it is unloaded."""
MAX_KEEP_ALIVE_SECONDS = 30 * 86400.0
_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,15})?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_duration(text: str) -> float:
    """Seconds; a bare number is seconds. Raises BadRequest."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise BadRequest(f"{text!r} is not a duration", hint="Write 30s, 10m, 2h or seconds.")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def check_keep_alive(text: str) -> str:
    """`text` itself where it is `0`, a duration of at most 30 days, or `pinned`; ValueError else."""
    if text == PINNED:
        return text
    try:
        seconds = parse_duration(text)
    except BadRequest as error:
        raise ValueError("must be 0, a duration such as 10m, or pinned") from error
    if seconds > MAX_KEEP_ALIVE_SECONDS:
        raise ValueError("is at most 30d; say pinned to keep a model for good")
    return text


def parse_size(text: str) -> int:
    """Bytes; a bare number is bytes. Raises BadRequest."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise BadRequest(f"{text!r} is not a size", hint="Write 4GiB, 500MB or bytes.")
    return int(Decimal(match[1]) * _UNITS[(match[2] or "").lower()])


def format_size(size_bytes: float) -> str:
    """A size for people, in binary units: 257.3 MiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} TiB"


def format_duration(seconds: float) -> str:
    """A duration for people: 85 ms, 3.2 s, 4m10s, 2h05m."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"
