"""What a placement policy sees of the pool, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from warmrack_store.states import NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One device: what it may give in all, and what residents hold of that now."""

    name: str
    budget_bytes: int
    used_bytes: int = 0
    pinned_bytes: int = 0
    """Of those, what no eviction frees."""
    pinned: tuple[str, ...] = ()
    """The residents that hold it."""

    @property
    def free_bytes(self) -> int:
        return self.budget_bytes - self.used_bytes

    @property
    def open_bytes(self) -> int:
        """What it can give once everything else has gone."""
        return self.budget_bytes - self.pinned_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node, as it stands to the resolution that is to be placed."""

    name: str
    devices: tuple[DeviceView, ...]
    state: NodeState = NodeState.READY
    warm_resident: bool = False
    """The model is warm here."""
    loading_resident: bool = False
    """The model is being loaded here, or a job for it was placed here."""
    has_snapshot: bool = False
    """Every file of the resolution is on this node's disk."""
    cached_fraction: float = 0.0
    """How much of the files is on disk where not all of them are; 0 to 1."""
    disk_room_bytes: int | None = None
    """What its store may still take in, after all that may go has gone; None: not known."""
    queued_jobs: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is to be placed; `memory_bytes` None is a prefetch, which needs no device."""

    size_bytes: int
    memory_bytes: int | None
    nodes: tuple[str, ...] = ()
    """The nodes it may go to; empty is any."""
    quantized_bytes: int = 0
    """Stored weights that are quantized at the load; 0 where none are."""


class Speed(StrEnum):
    """What the pool measures; the names under which the rates are kept."""

    HUB = "hub-bytes"
    DISK = "disk-bytes"
    HOST = "host-seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Measured speeds; the defaults hold until there are measurements.

    `host_seconds` is a fork of an exercised nursery with its tokenizer and audit (0.3 s measured);
    the disk's rate is that of a cold NVMe read with one hash over it, the Hub's that of a 1 Gbit/s
    line.
    """

    disk_bytes_per_second: float = 1e9
    hub_bytes_per_second: float = 1e8
    host_seconds: float = 0.5
    evict_seconds: float = 2.0
    """A drain, and part of the reload that somebody else will wait for."""
    queued_job_seconds: float = 1.0
    quantize_bytes_per_second: float = 2e7
    """Of stored 16-bit weights: a model of 1 GB took two CPU cores 49 to 75 s."""
    measured: frozenset[Speed] = frozenset()
    """Those of these that were measured in this pool; the others are the defaults."""


class Stage(StrEnum):
    """What has to happen before the model is warm, in this order."""

    FETCH = "fetch"
    QUEUE = "queue"
    EVICT = "evict"
    LOAD = "load"
    QUANTIZE = "quantize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage, how long it is expected to take, and whether from a speed measured here."""

    stage: Stage
    seconds: float
    measured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A policy's word on one node: the lowest cost wins; `reason` is for `ps --why`."""

    cost_seconds: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A node that was not chosen: `slower`, or the code of what excludes it."""

    node: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    node: str
    reason: str
    alternatives: tuple[Alternative, ...]


Policy = Callable[[Need, NodeView, Rates], Expected]
