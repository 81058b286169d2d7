"""What a node does about its residents: everything that is so, in; what is to be done, out. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from warmrack_store.durations import format_size
from warmrack_store.errors import WarmrackError, WontFit
from warmrack_store.eviction import DEFAULT_POLICY, ResidentView, plan_victims
from warmrack_store.states import ResidentState

COMING = frozenset({ResidentState.STARTING, ResidentState.LOADING, ResidentState.AUDITING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A claimed job that wants weights warm; `key` is their cache key, `since` when it came."""

    job_id: str
    epoch: int
    """Of the claim: a job that was lost and claimed again wants them twice for a moment."""
    key: str
    size_bytes: int
    rank: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A resident of this node, from its start to its end. Times are of the loop's clock."""

    id: str
    key: str
    device: str
    size_bytes: int
    state: ResidentState
    in_flight: int = 0
    last_used_at: float
    leased_until: float = 0.0
    keep_alive_seconds: float
    pinned: bool = False
    drain_requested: bool = False
    load_seconds: float = 0.0

    def to_view(self) -> ResidentView:
        return ResidentView(
            id=self.id,
            key=self.key,
            device=self.device,
            size_bytes=self.size_bytes,
            last_used_at=self.last_used_at,
            load_seconds=self.load_seconds,
            in_flight=self.in_flight,
            leased_until=self.leased_until,
            pinned=self.pinned,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now. Everything not named waits for the next change."""

    joins: tuple[tuple[Want, Seat], ...] = ()
    """The want is served: its model is warm here."""
    starts: tuple[tuple[Want, str], ...] = ()
    """Start a host for the want on the device."""
    drains: tuple[tuple[Seat, str], ...] = ()
    """Let the seat end its running work, then end it; with the cause."""
    refusals: tuple[tuple[Want, WarmrackError], ...] = ()


def decide(
    budgets: Mapping[str, int],
    seats: Sequence[Seat],
    wants: Sequence[Want],
    now: float,
    *,
    policy: str = DEFAULT_POLICY,
) -> Plan:
    """The plan for one node; `budgets` are bytes by device.

    1. A seat that somebody wants gone, or that has idled out, drains.
    2. A want whose weights are warm joins them.
    3. A want whose weights are coming waits for them.
    4. A want that no device could ever hold is refused, and so is one for which every device that
       could has too little left beside its pinned seats: nobody knows when a pin is taken off.
    5. A want that fits into free memory starts, the first one of its key only.
    6. Else victims drain, if that helps; what is draining already counts as coming free, and what
       others want is no victim.
    7. A want for which nothing helps waits: leases end, work ends.
    """
    drains = {seat.id: (seat, cause) for seat, cause in _ending(seats, wants, now)}  # 1
    staying = [seat for seat in seats if seat.id not in drains]
    warm = {seat.key: seat for seat in staying if seat.state is ResidentState.WARM}
    coming = {seat.key for seat in staying if seat.state in COMING}
    joins: list[tuple[Want, Seat]] = []
    starts: list[tuple[Want, str]] = []
    refusals: list[tuple[Want, WarmrackError]] = []
    free = _free(budgets, seats)
    pinned = [seat for seat in staying if seat.pinned]
    unpinned = _free(budgets, pinned)
    waiting_devices: set[str] = set()
    wanted = {want.key for want in wants}
    evictable = [seat for seat in staying if seat.key not in wanted]
    for want in sorted(wants, key=lambda want: (want.rank, want.since, want.job_id)):
        if want.key in warm:  # 2
            joins.append((want, warm[want.key]))
        elif want.key in coming:  # 3
            continue
        elif want.size_bytes > max(budgets.values(), default=0):  # 4
            refusals.append((want, _wont_fit(want, budgets)))
        elif want.size_bytes > max(unpinned.values(), default=0):  # 4
            refusals.append((want, _all_pinned(want, pinned)))
        elif device := _roomiest(free, want.size_bytes, waiting_devices):  # 5
            starts.append((want, device))
            coming.add(want.key)
            free[device] -= want.size_bytes
        else:  # 6, 7
            making = _make_room(want, evictable, seats, drains, free, policy, now)
            if making is not None:
                device, victims = making
                drains |= {seat.id: (seat, "evicted") for seat in victims}
                waiting_devices.add(device)
                coming.add(want.key)
    return Plan(
        joins=tuple(joins),
        starts=tuple(starts),
        drains=tuple(pair for pair in drains.values() if _can_drain(pair[0])),
        refusals=tuple(refusals),
    )


def _can_drain(seat: Seat) -> bool:
    return seat.state is not ResidentState.DRAINING


def _ending(seats: Iterable[Seat], wants: Iterable[Want], now: float) -> Iterable[tuple[Seat, str]]:
    wanted = {want.key for want in wants}
    for seat in seats:
        if seat.state is ResidentState.DRAINING:
            yield seat, "draining"
        elif seat.drain_requested:
            yield seat, "unloaded"
        elif seat.state is ResidentState.WARM and seat.key not in wanted and _idled_out(seat, now):
            yield seat, "idle"


def _idled_out(seat: Seat, now: float) -> bool:
    busy = seat.pinned or seat.in_flight > 0 or seat.leased_until > now
    return not busy and now - seat.last_used_at >= seat.keep_alive_seconds


def _free(budgets: Mapping[str, int], seats: Iterable[Seat]) -> dict[str, int]:
    """Bytes by device; a seat holds its memory until its process is gone."""
    free = dict(budgets)
    for seat in seats:
        free[seat.device] = free.get(seat.device, 0) - seat.size_bytes
    return free


def _roomiest(free: Mapping[str, int], size_bytes: int, excluded: set[str]) -> str | None:
    """The device with the most free memory, if that is enough; ties by name."""
    open_devices = {name: bytes_ for name, bytes_ in free.items() if name not in excluded}
    best = min(open_devices, key=lambda name: (-open_devices[name], name), default=None)
    return best if best is not None and open_devices[best] >= size_bytes else None


def _make_room(
    want: Want,
    evictable: Sequence[Seat],
    seats: Sequence[Seat],
    drains: Mapping[str, tuple[Seat, str]],
    free: Mapping[str, int],
    policy: str,
    now: float,
) -> tuple[str, tuple[Seat, ...]] | None:
    """The device where the fewest bytes go, and the seats that must; None where nothing helps."""
    options: list[tuple[int, str, tuple[Seat, ...]]] = []
    for device in sorted(free):
        here = [seat for seat in seats if seat.device == device]
        leaving = sum(seat.size_bytes for seat in here if seat.id in drains)
        missing = want.size_bytes - free[device] - leaving
        warm = {
            seat.id: seat
            for seat in evictable
            if seat.device == device and seat.id not in drains and seat.state is ResidentState.WARM
        }
        victims = plan_victims(policy, missing, [seat.to_view() for seat in warm.values()], now)
        if victims is not None:
            chosen = tuple(warm[victim.id] for victim in victims)
            options.append((sum(seat.size_bytes for seat in chosen), device, chosen))
    if not options:
        return None
    _, device, chosen = min(options, key=lambda option: (option[0], option[1]))
    return device, chosen


def _wont_fit(want: Want, budgets: Mapping[str, int]) -> WontFit:
    shown = ", ".join(f"{name} {format_size(size)}" for name, size in sorted(budgets.items()))
    return WontFit(f"the model needs {format_size(want.size_bytes)}; this node has {shown}")


def _all_pinned(want: Want, pinned: Sequence[Seat]) -> WontFit:
    names = ", ".join(sorted(seat.id for seat in pinned))
    return WontFit(
        f"the model needs {format_size(want.size_bytes)}, and what is pinned here leaves less on "
        f"each device: {names}",
        hint="Unpin or unload one of them, or name another node.",
    )
