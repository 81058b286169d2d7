"""The metadata at the head of a model card, as far as tests need YAML."""

import re
from typing import Any

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_KEY = re.compile(r"^([A-Za-z_][\w-]*):[ \t]*(.*)$")
_ITEM = re.compile(r"^\s*-\s+(.*)$")


def read_card(text: str) -> dict[str, Any]:
    """Top-level scalars and lists of scalars; anything nested deeper is left out."""
    found = _FRONT_MATTER.match(text)
    card: dict[str, Any] = {}
    key: str | None = None
    for line in found.group(1).splitlines() if found else ():
        if pair := _KEY.match(line):
            key, value = pair.group(1), _plain(pair.group(2))
            card[key] = value or []
        elif (item := _ITEM.match(line)) and key is not None and isinstance(card[key], list):
            card[key].append(_plain(item.group(1)))
    return card


def _plain(value: str) -> str:
    return value.strip().strip("\"'")
