"""What the service answers, as frozen records; fields of a newer service are kept."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from warmrack.answers import error_of
from warmrack_store import receipts, rechecks, resolution
from warmrack_store.errors import Cancelled, WarmrackError
from warmrack_store.states import JobKind, JobState, NodeState, ResidentState


class Result(BaseModel):
    """Frozen and open: a field that this version does not know is kept in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Progress(Result):
    """How far a job is; rates are bytes a second."""

    bytes_done: int = 0
    bytes_total: int = 0
    """0 while it is not known."""
    rate: float | None = None
    eta_seconds: float | None = None
    waiting_for: str | None = None
    position: int | None = None
    """Place in the queue, from 1; 0 or None where it does not wait there."""


class Resolved(Result):
    """The part of a resolution that a job carries."""

    repository: str
    commit: str
    substitution: str = "none"
    precision: str | None = None
    ref_asked: str | None = None
    files: int | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None


class Failure(Result):
    """Why a job failed."""

    code: str
    message: str = ""
    hint: str = ""
    retryable: bool = False

    def to_error(self) -> WarmrackError:
        return error_of(self.model_dump())


class Job(Result):
    """One submitted piece of work and where it stands."""

    id: str
    kind: JobKind
    state: JobState
    model: str | None = None
    cause: str | None = None
    attempt: int = 1
    node: str | None = None
    progress: Progress = Progress()
    resolution: Resolved | None = None
    joined_to: str | None = None
    resident: str | None = None
    receipt: str | None = None
    lock: str | None = None
    """Digest of the lock that held it."""
    result: Any = None
    error: Failure | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None

    def raise_for_state(self) -> None:
        """Raise the job's error where it failed or was cancelled."""
        if self.state is JobState.FAILED or (self.state.terminal and self.error is not None):
            raise (self.error or Failure(code="defect", message=f"job {self.id} failed")).to_error()
        if self.state is JobState.CANCELLED:
            raise Cancelled(f"job {self.id} was cancelled: {self.cause or 'no cause given'}")


class Event(Result):
    """One event of a job: a move to the state that `type` names, or its `progress` as it stands.

    `id` is what a reconnect resumes after.
    """

    id: str | None
    type: str
    data: dict[str, Any]

    @property
    def terminal(self) -> bool:
        """True where nothing follows: the job has ended."""
        return self.type in {state.value for state in JobState if state.terminal}


class Device(Result):
    """A place for models; budget and use in bytes."""

    name: str
    budget_bytes: int | None = None
    used_bytes: int | None = None


class Node(Result):
    name: str
    state: NodeState
    url: str | None = None
    mirror_url: str | None = None
    devices: tuple[Device, ...] = ()
    labels: dict[str, Any] = Field(default_factory=dict)


class Resident(Result):
    """A live host process and the model in it."""

    id: str
    model: str
    commit: str | None = None
    precision: str | None = None
    state: ResidentState
    node: str | None = None
    device: str | None = None
    pid: int | None = None
    bytes: int = 0
    leases: int = 0
    pinned: bool = False
    idle_seconds: float | None = None


class Snapshot(Result):
    """One copy of a repository at a commit in one store."""

    repository: str
    commit: str
    store: str | None = None
    nodes: tuple[str, ...] = ()
    """Those that read and write this store."""
    complete: bool = True
    bytes_done: int = 0
    bytes_total: int = 0


class Egress(Result):
    """Body bytes of files, summed for one job, tenant or repository."""

    job: str | None = None
    tenant: str | None = None
    repository: str | None = None
    hub_bytes: int
    peer_bytes: int
    local_bytes: int
    """Already on the node's disk."""
    deduplicated_bytes: int
    """Brought by the fetch of another job, which this one joined or waited for."""


class StoredLock(Result):
    """A models.lock as the service keeps it."""

    digest: str
    entries: tuple[dict[str, Any], ...]
    tenant: str
    """Who brought it first."""
    created_at: datetime


class Step(Result):
    """One thing that has to happen before a model is warm: fetch, queue, evict, load, quantize."""

    stage: str
    seconds: float
    measured: bool = False
    """False: the pool has not measured such a thing yet; a default stands in."""


class Fit(Result):
    """One device of the pool, held against the memory that a model needs."""

    node: str
    device: str
    state: NodeState = NodeState.READY
    """Of the node."""
    budget_bytes: int
    used_bytes: int = 0
    free_bytes: int
    fits: bool
    """Within the budget, at least after others have gone."""
    fits_now: bool
    holds: bool = False
    """The model is warm on this device."""
    best: bool = False
    """Of all devices the one on which it would be warm first."""
    missing_bytes: int | None = None
    """What the node would fetch first."""
    expected_seconds: float | None = None
    """Until the model would be warm there; None where it cannot become so."""
    steps: tuple[Step, ...] = ()
    reason: str = ""


class Estimate(Result):
    """The memory that a request needs, and where in the pool that fits."""

    asked: str
    ref_asked: str | None = None
    repository: str
    commit: str
    substitution: str = "none"
    precision: str
    architecture: str | None = None
    parameters: int
    size_bytes: int
    """Of all files."""
    download_bytes: int
    """What would still come from the Hub."""
    cached_on: tuple[str, ...] = ()
    """The nodes that have all files on disk."""
    memory: resolution.Memory
    memory_bytes: int
    """Its total."""
    devices: tuple[Fit, ...] = ()
    expected_seconds: float | None = None
    """On the best device."""
    warnings: tuple[str, ...] = ()


class Explanation(resolution.Resolution):
    """What a request resolves to, and where in the pool it fits."""

    model_config = ConfigDict(frozen=True, extra="allow")

    devices: tuple[Fit, ...] = ()
    expected_seconds: float | None = None
    download_bytes: int | None = None
    """What would still come from the Hub."""
    cached_on: tuple[str, ...] = ()
    """The nodes that have all files on disk."""
    receipt: receipts.Receipt | None = None
    """At level `name`: the repository and the commit, before any file."""


class Receipt(receipts.Receipt):
    """What was asked, what is served, and the checks that say so."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Recheck(rechecks.Recheck):
    """What the disk and the memory held when a receipt was checked again."""

    model_config = ConfigDict(frozen=True, extra="allow")


class PoolKey(Result):
    """The public half of the key that a pool signs its receipts with."""

    keyid: str
    algorithm: str = "ed25519"
    pem: str


class Token(Result):
    """A piece of generated text, as it comes."""

    text: str


class Done(Result):
    """The end of a stream, with the whole result."""

    result: dict[str, Any]
