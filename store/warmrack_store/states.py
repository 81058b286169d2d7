"""The closed sets of states, and which move is allowed from which."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands. `succeeded`, `failed` and `cancelled` are terminal for good."""

    QUEUED = "queued"
    """Accepted and stored; nobody holds it (a transient failure comes back here)."""
    RESOLVING = "resolving"
    """A worker asks the Hub for facts and pins the commit."""
    PLACED = "placed"
    """Resolved; waits for, or is taken up by, the node it was placed on."""
    FETCHING = "fetching"
    """Bytes are on their way into that node's cache."""
    LOADING = "loading"
    """The residency loop has it: joining, evicting, loading or auditing."""
    RUNNING = "running"
    """Only task jobs: the task runs on the warm model."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
WAITING = frozenset({JobState.QUEUED, JobState.PLACED})
"""States in which a job may be claimed, when nobody holds it."""

HELD = frozenset({JobState.RESOLVING, JobState.FETCHING, JobState.LOADING, JobState.RUNNING})

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RESOLVING, JobState.PLACED}) | TERMINAL,
    JobState.RESOLVING: frozenset({JobState.QUEUED, JobState.PLACED}) | TERMINAL,
    JobState.PLACED: frozenset({JobState.QUEUED, JobState.FETCHING}) | TERMINAL,
    JobState.FETCHING: frozenset({JobState.QUEUED, JobState.LOADING}) | TERMINAL,
    JobState.LOADING: frozenset({JobState.QUEUED, JobState.RUNNING}) | TERMINAL,
    JobState.RUNNING: frozenset({JobState.QUEUED}) | TERMINAL,
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class ResidentState(StrEnum):
    """Where a host process and its model stand."""

    STARTING = "starting"
    LOADING = "loading"
    AUDITING = "auditing"
    WARM = "warm"
    DRAINING = "draining"
    GONE = "gone"

    @property
    def live(self) -> bool:
        return self is not ResidentState.GONE


class NodeState(StrEnum):
    """What the pool may ask of a node."""

    READY = "ready"
    DRAINING = "draining"
    UNREACHABLE = "unreachable"
    """Silent for three heartbeats: gets no new work."""
    LOST = "lost"
    """Silent for longer than a lease: its jobs and residents are written off."""
    STOPPED = "stopped"
    """Said goodbye by itself."""

    @property
    def answers(self) -> bool:
        """Whether it can be asked for what it holds, with new work or without."""
        return self in (NodeState.READY, NodeState.DRAINING)


class Tier(StrEnum):
    """How near to the device a job brings the model."""

    DISK = "disk"
    RAM = "ram"
    DEVICE = "device"


class JobKind(StrEnum):
    LOAD = "load"
    PREFETCH = "prefetch"
    TASK = "task"


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BACKGROUND = "background"

    @property
    def rank(self) -> int:
        """Smaller goes first."""
        return (Priority.INTERACTIVE, Priority.NORMAL, Priority.BACKGROUND).index(self)
