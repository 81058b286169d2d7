"""An explanation as a person reads it: asked, served, memory, where it fits, and why."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from warmrack import Explanation, Node
from warmrack_daemon.cli.output import print_line, print_table
from warmrack_store.durations import format_size


class Room(StrEnum):
    """Whether a device has room for a model."""

    FREE = "fits"
    OCCUPIED = "fits after eviction"
    TOO_SMALL = "too small"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One device of the pool, held against the memory that a model needs."""

    node: str
    device: str
    budget_bytes: int | None
    used_bytes: int
    room: Room

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def list_fits(needed_bytes: int, nodes: Sequence[Node]) -> tuple[Fit, ...]:
    """Every device of the nodes, and whether it has so much room."""
    return tuple(
        Fit(
            node=node.name,
            device=device.name,
            budget_bytes=device.budget_bytes,
            used_bytes=device.used_bytes or 0,
            room=_room(needed_bytes, device.budget_bytes, device.used_bytes or 0),
        )
        for node in nodes
        for device in node.devices
    )


def _room(needed_bytes: int, budget_bytes: int | None, used_bytes: int) -> Room:
    if budget_bytes is None:
        return Room.UNKNOWN
    if needed_bytes > budget_bytes:
        return Room.TOO_SMALL
    return Room.FREE if needed_bytes <= budget_bytes - used_bytes else Room.OCCUPIED


def print_explanation(explanation: Explanation, fits: Sequence[Fit]) -> None:
    facts = list(_facts(explanation))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print_line(f"{name.ljust(width)}  {value}")
    if fits:
        print_line("")
        print_table(("node", "device", "budget", "used", "room"), [_fit_row(fit) for fit in fits])
    print_line("")
    print_table(
        ("rule", "saw", "decided", "because"),
        [(line.rule, line.input, line.decision, line.evidence) for line in explanation.trail],
    )
    if explanation.rejected:
        print_line("")
        rejected = [(one.repository, one.code, one.reason) for one in explanation.rejected]
        print_table(("rejected", "code", "reason"), rejected)


def _facts(explanation: Explanation) -> Iterator[tuple[str, str]]:
    memory = explanation.memory
    same = explanation.substitution == "none"
    how = "as asked" if same else f"{explanation.substitution} of what was asked"
    ref = f"@{explanation.ref_asked}" if explanation.ref_asked else ""
    yield "asked", f"{explanation.asked}{ref}"
    yield "served", f"{explanation.repository} ({how})"
    yield "commit", explanation.commit
    yield "precision", explanation.precision
    yield (
        "model",
        f"{explanation.architecture or 'unknown'}, {explanation.parameters:,} parameters",
    )
    yield "files", f"{len(explanation.files)}, {format_size(explanation.size_bytes)}"
    yield (
        "memory",
        f"{format_size(memory.total_bytes)} = weights {format_size(memory.weights_bytes)}"
        f" + cache {format_size(memory.cache_bytes)} ({memory.context_tokens:,} tokens)"
        f" + workspace {format_size(memory.workspace_bytes)}",
    )
    for warning in explanation.warnings:
        yield "warning", warning


def _fit_row(fit: Fit) -> tuple[str, ...]:
    budget = "" if fit.budget_bytes is None else format_size(fit.budget_bytes)
    return (fit.node, fit.device, budget, format_size(fit.used_bytes), fit.room.value)
