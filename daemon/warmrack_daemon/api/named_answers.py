"""Answers of a host with the id of their receipt put in, while they pass through unparsed."""

import json

_FINAL = b"event: done\ndata: {"
"""No other bytes of a stream look like this: inside JSON a line's end is written as `\\n`."""
_TERMINAL = (b"\nevent: done\n", b"\nevent: error\n")
_END = b"\n\n"


def name_result(body: bytes, receipt_id: str | None) -> bytes:
    """A JSON object with the receipt as its first field; anything else as it is."""
    if receipt_id is None or not body.startswith(b"{") or body.startswith(b"{}"):
        return body
    return b"{" + _field(receipt_id) + body[1:]


class NamedStream:
    """Feeds a stream's events through; the final one gets the receipt as its first field.

    An event is passed on when it is whole, so that what a broken stream is followed by is read
    as an event of its own.
    """

    def __init__(self, receipt_id: str | None) -> None:
        self._field = _field(receipt_id) if receipt_id is not None else b""
        self._held = bytearray()
        self.ended = False
        """Whether a `done` or an `error` has gone through."""

    def feed(self, chunk: bytes) -> bytes:
        """The events that are whole with this chunk."""
        looked_at = max(0, len(self._held) - 1)
        self._held += chunk
        end = self._held.rfind(_END, looked_at) + len(_END)
        if end < len(_END):
            return b""
        events = bytes(self._held[:end])
        del self._held[:end]
        self.ended = self.ended or any(mark in b"\n" + events for mark in _TERMINAL)
        before, found, after = events.partition(_FINAL)
        return before + found + self._field + after if found else events


def _field(receipt_id: str) -> bytes:
    return f'"receipt":{json.dumps(receipt_id)},'.encode()
