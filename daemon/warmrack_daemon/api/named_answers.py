"""Answers of a host with the id of their receipt put in, while they pass through unparsed."""

import json

_FINAL = b"event: done\ndata: {"
"""No other bytes of a stream look like this: inside JSON a line's end is written as `\\n`."""


def name_result(body: bytes, receipt_id: str | None) -> bytes:
    """A JSON object with the receipt as its first field; anything else as it is."""
    if receipt_id is None or not body.startswith(b"{") or body.startswith(b"{}"):
        return body
    return b"{" + _field(receipt_id) + body[1:]


class NamedStream:
    """Feeds a stream through; its final event gets the receipt as its first field.

    Bytes are held back only while they could be the beginning of that event.
    """

    def __init__(self, receipt_id: str | None) -> None:
        self._field = _field(receipt_id) if receipt_id is not None else b""
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        text = self._held + chunk
        before, found, after = text.partition(_FINAL)
        if found:
            self._held = b""
            return before + found + self._field + after
        held = next((n for n in range(len(_FINAL) - 1, 0, -1) if text.endswith(_FINAL[:n])), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> bytes:
        """What is still held when the stream ends."""
        held, self._held = self._held, b""
        return held


def _field(receipt_id: str) -> bytes:
    return f'"receipt":{json.dumps(receipt_id)},'.encode()
