"""What a row found: both sides' samples, what was aimed at, and whether that was met."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class Unit(StrEnum):
    """What samples are counted in."""

    SECONDS = "seconds"
    BYTES = "bytes"
    COUNT = "count"


class Chapter(StrEnum):
    RESOLUTION = "Resolution"
    BYTES = "Bytes from the Hub"
    WARM = "Warm models"
    JOBS = "Jobs"
    POOL = "The pool's decisions"
    MEMORY = "Memory"


class Judged(StrEnum):
    """Which number a goal is about: of the medians the quotient, the difference, or ours alone."""

    RATIO = "ratio"
    DIFFERENCE = "difference"
    OURS = "ours"


class Bound(StrEnum):
    AT_MOST = "at most"
    AT_LEAST = "at least"


class Verdict(StrEnum):
    MET = "met"
    MISSED = "missed"
    NOT_JUDGED = "not judged"
    """Measured for information."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two things compared; seconds and bytes as such, never multiples of them.

    Raises ValueError without samples: a side that measured nothing proves nothing.
    """

    name: str
    unit: Unit
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError(f"{self.name}: no samples")

    @property
    def median(self) -> float:
        return median(self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    judged: Judged
    limit: float
    bound: Bound = Bound.AT_MOST

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.bound is Bound.AT_MOST else value >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Two sides, or ours alone. Raises ValueError for a goal that needs a side that is not there,
    and for sides in different units."""

    what: str
    ours: Side
    against: Side | None = None
    goal: Goal | None = None

    def __post_init__(self) -> None:
        compares = self.goal is not None and self.goal.judged is not Judged.OURS
        if compares and self.against is None:
            raise ValueError(f"{self.what}: its goal compares, but there is one side only")
        if self.against is not None and self.against.unit is not self.ours.unit:
            raise ValueError(f"{self.what}: {self.ours.unit} against {self.against.unit}")

    @property
    def ratio(self) -> float | None:
        """Ours over theirs; None where there is nothing to divide by."""
        if self.against is None or not self.against.median:
            return None
        return self.ours.median / self.against.median

    @property
    def judged_value(self) -> float | None:
        """The number that the goal is about."""
        if self.goal is None:
            return None
        if self.goal.judged is Judged.OURS:
            return self.ours.median
        if self.goal.judged is Judged.RATIO:
            return self.ratio
        return self.ours.median - self.against.median if self.against else None

    @property
    def verdict(self) -> Verdict:
        if self.goal is None:
            return Verdict.NOT_JUDGED
        value = self.judged_value
        return Verdict.MET if value is not None and self.goal.holds(value) else Verdict.MISSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A comparison whose peer is not on this machine."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A row that ended with an error instead of a result."""

    what: str
    reason: str


Finding = Measurement | Skipped | Broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the goals, and what measures it."""

    name: str
    title: str
    chapter: Chapter
    limit_seconds: int
    """The whole row is broken off after so long."""
    measure: Callable[[], Iterable[Finding]]
    if_missed: str = ""
    """Why it is missed so far, and the next idea; printed only where it is."""
