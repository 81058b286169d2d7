"""The findings as one Markdown page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.machine import Conditions
from bench.measurements import (
    Bound,
    Broken,
    Chapter,
    Finding,
    Goal,
    Judged,
    Measurement,
    Row,
    Side,
    Skipped,
    Unit,
    Verdict,
)

_INTRO = """# Results

Written by `make bench`; no number here is by hand. Each row is measured in one run on one machine,
and only the ratio means anything on another. A cell is the median (least to most; number of
samples). The ratio is the first side over the second."""
_HEAD = """| goal | what | warmrack | against | ratio | goal | result |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    row: Row
    findings: tuple[Finding, ...]
    seconds: float
    """How long measuring it took."""

    @property
    def missed(self) -> bool:
        return any(_is_missed(finding) for finding in self.findings)


def render(conditions: Conditions, results: Sequence[RowResult]) -> str:
    """One table a chapter, in the order of `Chapter`; chapters without rows are left out."""
    parts = [_INTRO, _render_conditions(conditions), _render_sum(results)]
    for chapter in Chapter:
        inside = [result for result in results if result.row.chapter is chapter]
        if inside:
            parts.append(_render_chapter(chapter, inside))
    return "\n\n".join(parts) + "\n"


def format_value(value: float, unit: Unit) -> str:
    if unit is Unit.SECONDS:
        if abs(value) >= 1:
            return f"{value:.2f} s"
        return f"{value * 1000:.{1 if abs(value) >= 0.01 else 2}f} ms"
    if unit is Unit.BYTES:
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,g}"


def _render_conditions(conditions: Conditions) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    return (
        f"Machine: {conditions.cpu_model}, {conditions.cores} cores, "
        f"{conditions.memory_bytes / 2**30:.0f} GiB of memory; "
        f"load average at the start {conditions.load_average:.2f}.\n"
        f"Versions: {versions}."
    )


def _render_sum(results: Sequence[RowResult]) -> str:
    findings = [finding for result in results for finding in result.findings]
    measured = [finding for finding in findings if isinstance(finding, Measurement)]
    counts = {
        "met": sum(one.verdict is Verdict.MET for one in measured),
        "missed": sum(one.verdict is Verdict.MISSED for one in measured),
        "skipped": sum(isinstance(one, Skipped) for one in findings),
        "broken": sum(isinstance(one, Broken) for one in findings),
    }
    return "Goals: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + "."


def _render_chapter(chapter: Chapter, results: Sequence[RowResult]) -> str:
    lines = [_line(result.row, finding) for result in results for finding in result.findings]
    took = ", ".join(f"{one.row.name} {one.row.title} ({one.seconds:.0f} s)" for one in results)
    parts = [f"## {chapter.value}", f"Rows: {took}.", "\n".join([_HEAD, *lines])]
    return "\n\n".join([*parts, *_render_misses(results)])


def _render_misses(results: Sequence[RowResult]) -> Iterator[str]:
    for result in results:
        if result.missed:
            yield f"{result.row.name} is missed. {result.row.if_missed or 'No reason is known yet.'}"


def _line(row: Row, finding: Finding) -> str:
    if isinstance(finding, Measurement):
        cells = _cells(finding)
    else:
        word = "skipped" if isinstance(finding, Skipped) else "**broken**"
        cells = [finding.what, "", "", "", "", f"{word}: {finding.reason}"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in [row.name, *cells]) + " |"


def _cells(measured: Measurement) -> list[str]:
    against = measured.against
    return [
        measured.what,
        _side(measured.ours),
        "–" if against is None else f"{against.name}: {_side(against)}",
        "–" if measured.ratio is None else f"{measured.ratio:.3f}",
        "–" if measured.goal is None else _goal(measured.goal, measured.ours.unit),
        _result(measured),
    ]


def _side(side: Side) -> str:
    middle = format_value(side.median, side.unit)
    if len(side.samples) == 1:
        return f"{middle} (1)"
    low, high = (format_value(end, side.unit) for end in (min(side.samples), max(side.samples)))
    return f"{middle} ({low} to {high}; {len(side.samples)})"


def _goal(goal: Goal, unit: Unit) -> str:
    sign = "<=" if goal.bound is Bound.AT_MOST else ">="
    if goal.judged is Judged.RATIO:
        return f"{sign} {goal.limit:g}x"
    added = "+ " if goal.judged is Judged.DIFFERENCE else ""
    return f"{sign} {added}{format_value(goal.limit, unit)}"


def _result(measured: Measurement) -> str:
    if measured.verdict is Verdict.NOT_JUDGED:
        return "for information"
    word = "met" if measured.verdict is Verdict.MET else "**missed**"
    value = measured.judged_value
    if value is None or measured.goal is None or measured.goal.judged is Judged.OURS:
        return word
    if measured.goal.judged is Judged.RATIO:
        return f"{word}: {value:.3f}x"
    return f"{word}: {'+' if value >= 0 else ''}{format_value(value, measured.ours.unit)}"


def _is_missed(finding: Finding) -> bool:
    return isinstance(finding, Measurement) and finding.verdict is Verdict.MISSED
