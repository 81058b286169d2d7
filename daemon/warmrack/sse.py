"""Server-sent events, read from bytes as they arrive."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from warmrack_store.errors import Defect

_LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\n|\r(?=[\s\S]))")
"""A lone CR at the end of the buffer may be half of a CRLF: it waits for the next byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One event: its type (`message` where none is given), its data and the last id seen."""

    type: str
    data: str
    id: str | None

    def read_object(self) -> dict[str, Any]:
        """The data as a JSON object; Defect where it is none."""
        try:
            value = json.loads(self.data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Defect(f"the service sent an event that is no JSON object: {self.data[:80]!r}")
        return value


class Parser:
    """Cuts a byte stream into events; comments and half an event at the end are dropped."""

    def __init__(self) -> None:
        self._buffer = b""
        self._type = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[Message]:
        self._buffer += chunk
        end = 0
        lines = []
        for match in _LINE.finditer(self._buffer):
            lines.append(match[1].decode("utf-8", errors="replace"))
            end = match.end()
        self._buffer = self._buffer[end:]
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                yield self._finish()

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value

    def _finish(self) -> Message:
        message = Message(type=self._type or "message", data="\n".join(self._data), id=self._id)
        self._type, self._data = "", []
        return message
