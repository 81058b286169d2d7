"""The connections of one fetch: each takes a stretch, fills it, and takes the next."""

import random
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Condition, Event
from time import monotonic

from warmrack_store.errors import Cancelled, HubUnavailable, Integrity, RateLimited, Transient
from warmrack_workers.fetch.filling import Filling
from warmrack_workers.fetch.line import Line
from warmrack_workers.fetch.pace import Pace
from warmrack_workers.fetch.part import Arrived, Part, Stretch
from warmrack_workers.fetch.patience import Patience
from warmrack_workers.fetch.pieces_known import PieceExchange
from warmrack_workers.fetch.sources import Source
from warmrack_workers.fetch.tally import Tally

_LOOK_SECONDS = 0.2
"""How long the connections' rate is measured before their number changes."""
_STRETCH_SECONDS = 1.0
"""About how long one request lasts, so that its latency is small against it."""
_SHARES = 3
"""A stretch is at most this part of what each connection still has to bring, so that all end about
together."""


@dataclass(slots=True, kw_only=True)
class _Standing:
    """How a source has behaved in this fetch."""

    source: Source
    rest_until: float = 0.0
    failures: int = 0
    is_out: bool = False


@dataclass(slots=True, kw_only=True)
class Crew:
    """All connections of a fetch. Sources are asked in their order: peers first, the last one at
    the end; only the last one's failures are the fetch's own."""

    sources: Sequence[Source]
    patience: Patience
    halt: Event
    tally: Tally
    line: Line
    rank: int
    exchange: PieceExchange
    changed: Condition = field(default_factory=Condition)
    _parts: list[Part] = field(default_factory=list)
    _news: list[tuple[str, Arrived]] = field(default_factory=list)
    _futures: list[Future[None]] = field(init=False)
    _pace: Pace = field(init=False)
    _looked: tuple[float, int] = (0.0, 0)
    _paused_until: float = 0.0
    _is_over: bool = False
    _standings: list[_Standing] = field(init=False)
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        most = max(1, self.line.connections)
        self._paused_until = monotonic() + self.line.budget.find_wait_seconds()
        self._pace = Pace(connections=min(2, most), most=most)
        self._standings = [_Standing(source=source) for source in self.sources]
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="fetch_line")
        self._futures = [self._pool.submit(self._work, number) for number in range(most)]

    def add(self, part: Part) -> None:
        if self.exchange.on_start is not None:
            self.exchange.on_start(part)
        with self.changed:
            self._parts.append(part)
            self.changed.notify_all()

    def remove(self, part: Part) -> None:
        with self.changed:
            self._parts.remove(part)
        if self.exchange.on_end is not None:
            self.exchange.on_end(part)

    def take_news(self) -> dict[str, list[tuple[int, str]]]:
        """Index and BLAKE3 of the pieces that came from no peer since the last call, by file."""
        peers = {source.name for source in self.sources if source.is_peer}
        news: dict[str, list[tuple[int, str]]] = {}
        with self.changed:
            for digest, arrived in self._news:
                if arrived.source not in peers:
                    news.setdefault(digest, []).append((arrived.index, arrived.blake3))
            self._news.clear()
        return news

    def end(self, linger_seconds: float) -> None:
        """Let the threads go; one that hangs is left behind and ends by itself."""
        with self.changed:
            self._is_over = True
            self.changed.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait(self._futures, timeout=linger_seconds)

    def look(self) -> None:
        """Fit the number of connections to what they bring; called some ten times a second.

        Raises RateLimited where the Hub wants to be left alone for longer than patience lasts.
        """
        now, received_bytes = monotonic(), self.tally.received_bytes
        since, before_bytes = self._looked
        if now - since < _LOOK_SECONDS:
            return
        self._looked = now, received_bytes
        wait_seconds = self.line.budget.find_wait_seconds()
        if wait_seconds > self.patience.longest_seconds:
            raise RateLimited(
                f"the Hub has asked for a pause of {wait_seconds:.0f} s more",
                retry_after_seconds=wait_seconds,
            )
        with self.changed:
            self._paused_until = max(self._paused_until, now + wait_seconds)
            if since and not self.line.must_yield(self.rank):
                self._pace = self._pace.look((received_bytes - before_bytes) / (now - since))
            self.changed.notify_all()

    def _work(self, number: int) -> None:
        while (task := self._take(number)) is not None:
            part, stretch, standing = task
            try:
                self._pull(part, stretch, standing)
                self._note_news(part, stretch)
            except BaseException as error:
                # Whatever it is, the thread that follows this part raises it.
                part.fail(error)
            finally:
                part.release(stretch)

    def _take(self, number: int) -> tuple[Part, Stretch, _Standing] | None:
        """The next stretch for connection `number`, once there is one; None at the end."""
        with self.changed:
            while not (self._is_over or self.halt.is_set()):
                now = monotonic()
                if number < self._pace.connections and now >= self._paused_until:
                    task = None if self.line.must_yield(self.rank) else self._find_task(now)
                    if task is not None:
                        return task
                self.changed.wait(self._find_wait_seconds(now))
            return None

    def _find_wait_seconds(self, now: float) -> float:
        times = [self._paused_until, *(part.rest_until for part in self._parts)]
        times += [standing.rest_until for standing in self._standings]
        return min([0.1, *(time - now for time in times if time > now)])

    def _find_task(self, now: float) -> tuple[Part, Stretch, _Standing] | None:
        for part in self._parts:
            standing = self._find_source(part, now)
            if standing is None or part.error is not None:
                continue
            to_the_end = not standing.source.ranged
            stretch = part.claim(self._most_bytes(part), to_the_end=to_the_end)
            if stretch is not None:
                return part, stretch, standing
        return None

    def _find_source(self, part: Part, now: float) -> _Standing | None:
        *peers, last = self._standings
        chosen: str | None = None
        if self.exchange.choose is not None:
            chosen = self.exchange.choose(part.file.digest, part.trusts_peers)
            if chosen is None:
                return None
        for standing in peers:
            if not part.trusts_peers or standing.is_out:
                continue
            if chosen == standing.source.name or (chosen is None and now >= standing.rest_until):
                return standing
        if chosen not in (None, last.source.name):
            return None
        return last if now >= part.rest_until else None

    def _most_bytes(self, part: Part) -> int:
        """How long a stretch should be."""
        since, before_bytes = self._looked
        passed = monotonic() - since
        rate = (self.tally.received_bytes - before_bytes) / max(passed, _LOOK_SECONDS)
        share = part.ahead_bytes // (self._pace.connections * _SHARES)
        return min(int(rate * _STRETCH_SECONDS / self._pace.connections), share)

    def _pull(self, part: Part, stretch: Stretch, standing: _Standing) -> None:
        source = standing.source
        find_piece = self.exchange.find_piece if source.is_peer else None
        filling = Filling(part, stretch, source.name, self.tally, find_piece)
        before, was_ranged = filling.position, source.ranged
        try:
            self._receive(part, stretch, source, filling)
        except Cancelled:
            raise
        except (Transient, Integrity) as error:
            if was_ranged and not source.ranged:
                return  # a discovery, no failure
            self._stop_if_halted(part)
            self._note_failure(part, standing, error, came=filling.position > before)
        except Exception as error:
            if not source.is_peer:
                raise
            self._leave_out(standing, error)
        finally:
            filling.note()
        if filling.position > before:
            standing.failures = 0

    def _note_news(self, part: Part, stretch: Stretch) -> None:
        with self.changed:
            for index in range(stretch.first, stretch.last):
                if (arrived := part.arrived.get(index)) is not None:
                    self._news.append((part.file.digest, arrived))

    def _receive(self, part: Part, stretch: Stretch, source: Source, filling: Filling) -> None:
        if filling.is_done:
            return
        with source.open(part.file, filling.position, stretch.end) as chunks:
            for chunk in chunks:
                self._stop_if_halted(part)
                self.line.pass_bytes(len(chunk), self.halt)
                filling.take(chunk)
                part.failures = 0
        self._stop_if_halted(part)
        if not filling.is_done:
            raise HubUnavailable(
                f"{part.file.path}: {source.name} stopped at {filling.position} of "
                f"{part.file.size} bytes"
            )

    def _note_failure(
        self, part: Part, standing: _Standing, error: Transient | Integrity, *, came: bool
    ) -> None:
        """Rest, more and more; raise where patience is at its end."""
        if standing.source.is_peer:
            self._note_peer(standing, error)
            return
        if isinstance(error, Integrity):
            raise error
        with self.changed:
            part.failures = 1 if came else part.failures + 1
            tries = part.failures
            self._pace = self._pace.back_off()
        delay = self.patience.find_delay_seconds(tries, error.retry_after_seconds, random.random())
        if isinstance(error, RateLimited):
            self.line.budget.put_wait(error.retry_after_seconds or delay or 1.0)
        if delay is None:
            raise error
        with self.changed:
            part.rest_until = monotonic() + delay
            if isinstance(error, RateLimited):
                self._paused_until = part.rest_until

    def _note_peer(self, standing: _Standing, error: Transient | Integrity) -> None:
        """A peer that breaks rests, one that lies is out: there are other sources. Where sources
        are chosen, who chooses decides how long one rests."""
        standing.failures += 1
        delay = self.patience.find_delay_seconds(
            standing.failures, error.retry_after_seconds, random.random()
        )
        chosen = self.exchange.choose is not None
        if isinstance(error, Integrity) or (delay is None and not chosen):
            self._leave_out(standing, error)
        else:
            standing.rest_until = monotonic() + (delay or 0.0)

    def name_liar(self, name: str, what: str) -> None:
        """Ask the source no more, and tell who wants to know."""
        for standing in self._standings:
            if standing.source.name == name:
                standing.is_out = True
        if self.exchange.on_liar is not None:
            self.exchange.on_liar(name, what)

    def _leave_out(self, standing: _Standing, error: Exception) -> None:
        standing.is_out = True
        if isinstance(error, Integrity):
            self.name_liar(standing.source.name, error.message)

    def _stop_if_halted(self, part: Part) -> None:
        if self.halt.is_set():
            raise Cancelled(f"stopped while fetching {part.file.path}")
