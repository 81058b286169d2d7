"""The conversation that follows a job's events, across broken connections."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from warmrack.answers import read_error
from warmrack.job_calls import get_job, job_path
from warmrack.outages import PAUSE_SECONDS, Outage
from warmrack.results import Event
from warmrack.sse import Parser
from warmrack.steps import Call, Emit, Pause, Step, Stream, open_stream, read_chunk
from warmrack_store.errors import StoreUnavailable, Unreachable


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where the reader stands in the job's events."""

    last_id: str | None
    ended: bool = False


def list_events(job_id: str, *, after: str | None = None) -> Stream[Event]:
    """The job's events from its first (or the one behind `after`) until it has ended.

    A connection that breaks is opened again behind the last event read, so that none is missed
    and none comes twice.
    """
    place = _Place(last_id=after)
    outage = Outage()
    while not place.ended:
        before = place.last_id
        try:
            yield from _read_events(job_id, place, outage)
            if not place.ended and place.last_id == before:
                place.ended = (yield from get_job(job_id)).state.terminal
        except (Unreachable, StoreUnavailable) as error:
            outage.bear(error)
        if not place.ended:
            yield Pause(seconds=PAUSE_SECONDS)


def _read_events(
    job_id: str, place: _Place, outage: Outage
) -> Generator[Step | Emit[Event], Any, None]:
    """One connection's events."""
    headers = {"Accept": "text/event-stream"}
    if place.last_id is not None:
        headers["Last-Event-ID"] = place.last_id
    call = Call(method="GET", path=f"{job_path(job_id)}/events", headers=headers)
    answer = yield from open_stream(call)
    if not answer.ok:
        raise read_error(answer)
    parser = Parser()
    while (chunk := (yield from read_chunk())) is not None:
        outage.answered()
        for message in parser.feed(chunk):
            event = Event(id=message.id, type=message.type, data=message.read_object())
            place.last_id = event.id or place.last_id
            yield Emit(item=event)
            if event.terminal:
                place.ended = True
                return
