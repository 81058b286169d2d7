"""One answer on its way to the client, through the faults that meet it."""

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from tests.hub.answers import Answer, FileSlice, Request, refusal_answer
from tests.hub.faults import (
    Close,
    CorruptByte,
    Drip,
    Headers,
    IgnoreRange,
    Latency,
    OtherContent,
    Rate,
    RateScope,
    Reset,
    Rewrite,
    Stall,
    Status,
)
from tests.hub.refusals import Refusal
from tests.hub.rules import LiveRule, Pacer

_CHUNK_BYTES = 1024 * 1024
# A paced body goes out in pieces this long, which is finer than a test can time.
_PACED_SECONDS = 0.02
_SMALLEST_PACED_BYTES = 512
_INVERTED = bytes(255 - value for value in range(256))

F = TypeVar("F")


class Cut(Exception):
    """The connection is to end here, by a reset or as if the server were done."""

    def __init__(self, *, by_reset: bool) -> None:
        super().__init__("cut by a fault")
        self.by_reset = by_reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """`pacers` lives as long as the connection; `account` is told bytes before they leave."""

    met: Sequence[LiveRule]
    connection: socket.socket
    pacers: MutableMapping[int, Pacer]
    stopping: threading.Event
    account: Callable[[int], None]

    def hold_back(self) -> None:
        """Live through what comes before the first byte; raises `Cut`."""
        for live in self.met:
            fault = live.fault
            if isinstance(fault, Latency):
                self.stopping.wait(fault.seconds)
            elif isinstance(fault, Stall | Reset | Close) and fault.after_bytes is None:
                self._interrupt(live)

    def change_request(self, request: Request) -> Request:
        if not any(self._each(IgnoreRange)):
            return request
        kept = {name: value for name, value in request.headers.items() if name != "range"}
        return replace(request, headers=kept)

    def change_answer(self, answer: Answer) -> Answer:
        for ordered in self._each(Status):
            refusal = Refusal(ordered.status, ordered.code, ordered.message, ordered.headers)
            answer = refusal_answer(refusal).about(answer.repository or "", answer.file)
        for rewrite in self._each(Rewrite):
            answer = _rewrite(answer, rewrite)
        for other in self._each(OtherContent):
            if other.file is not None and isinstance(answer.content, FileSlice):
                content = replace(answer.content, location=Path(other.file))
                answer = replace(answer, content=content)
        for headers in self._each(Headers):
            wrong = {name.lower() for name in headers.replaced}
            right = {
                name: told for name, told in answer.headers.items() if name.lower() not in wrong
            }
            answer = replace(answer, headers={**right, **headers.replaced})
        return answer

    def list_removed_headers(self) -> frozenset[str]:
        """Names in lower case that are not to be sent."""
        return frozenset(name.lower() for held in self._each(Headers) for name in held.removed)

    def send_body(self, content: bytes | FileSlice) -> None:
        """Raises `Cut`, or the OSError of a client that went away."""
        length = len(content) if isinstance(content, bytes) else content.length_bytes
        with ExitStack() as stack:
            send = self._open(content, stack)
            position = 0
            while position < length:
                self._interrupt_at(position)
                count = min(self._next_count(position), length - position)
                self._pause_before(count)
                position += self._send_counted(send, position, count)
            self._interrupt_at(length)

    def _send_counted(self, send: Callable[[int, int], int], position: int, count: int) -> int:
        self.account(count)
        sent = 0
        try:
            sent = send(position, count)
        finally:
            if sent != count:
                self.account(sent - count)
        return sent

    def _open(self, content: bytes | FileSlice, stack: ExitStack) -> Callable[[int, int], int]:
        """A function that sends from a position of the body and returns how much went out."""
        connection = self.connection
        if isinstance(content, bytes):
            view = content
            return lambda start, count: connection.send(
                self._altered(start, view[start : start + count])
            )
        stream: BinaryIO = stack.enter_context(content.location.open("rb"))
        file, base = stream.fileno(), content.offset_bytes
        if not any(self._each(CorruptByte)) and not any(self._each(OtherContent)):
            return lambda start, count: os.sendfile(connection.fileno(), file, base + start, count)
        return lambda start, count: connection.send(
            self._altered(base + start, os.pread(file, count, base + start))
        )

    def _altered(self, offset: int, data: bytes) -> bytes:
        for other in self._each(OtherContent):
            data = data if other.file is not None else data.translate(_INVERTED)
        for corrupt in self._each(CorruptByte):
            index = corrupt.offset_bytes - offset
            if 0 <= index < len(data):
                data = data[:index] + bytes([data[index] ^ 0xFF]) + data[index + 1 :]
        return data

    def _interrupt_at(self, position: int) -> None:
        for live in self.met:
            fault = live.fault
            if isinstance(fault, Stall | Reset | Close) and fault.after_bytes == position:
                self._interrupt(live)

    def _next_count(self, position: int) -> int:
        """How many bytes go out in one piece from here."""
        counts = [_CHUNK_BYTES]
        for live in self.met:
            fault = live.fault
            if isinstance(fault, Drip):
                counts.append(fault.chunk_bytes)
            elif isinstance(fault, Rate):
                paced = int(fault.bytes_per_second * _PACED_SECONDS)
                counts.append(max(paced, _SMALLEST_PACED_BYTES))
            elif isinstance(fault, Stall | Reset | Close) and (fault.after_bytes or 0) > position:
                counts.append((fault.after_bytes or 0) - position)
        return min(counts)

    def _pause_before(self, count: int) -> None:
        for live in self.met:
            fault = live.fault
            if isinstance(fault, Drip):
                self.stopping.wait(fault.pause_seconds)
            elif isinstance(fault, Rate):
                self.stopping.wait(self._pacer_of(live, fault).reserve(count))

    def _pacer_of(self, live: LiveRule, fault: Rate) -> Pacer:
        if fault.scope is RateScope.ALL and live.pacer is not None:
            return live.pacer
        return self.pacers.setdefault(live.number, Pacer(fault.bytes_per_second))

    def _interrupt(self, live: LiveRule) -> None:
        """Raises `Cut` also where a stall ends because the Hub stops."""
        fault = live.fault
        if isinstance(fault, Stall):
            live.over.wait(fault.seconds)
        if not isinstance(fault, Stall) or self.stopping.is_set():
            raise Cut(by_reset=isinstance(fault, Reset))

    def _each(self, kind: type[F]) -> Iterator[F]:
        return (live.fault for live in self.met if isinstance(live.fault, kind))


def _rewrite(answer: Answer, rewrite: Rewrite) -> Answer:
    if not isinstance(answer.content, bytes):
        return answer
    text = re.sub(rewrite.pattern, rewrite.replacement, answer.content.decode())
    return replace(answer, content=text.encode())
