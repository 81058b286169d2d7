"""What a measurement says of itself, the page that shows it, and rows that break."""

import re
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench.__main__ import measure
from bench.machine import Conditions, find_cpu_model, read_conditions
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
from bench.results import RowResult, format_value, render
from bench.rows import ROWS

CONDITIONS = Conditions(
    cpu_model="Fast CPU",
    cores=2,
    memory_bytes=8 * 2**30,
    load_average=0.25,
    versions={"Python": "3.11.7", "torch": "2.13.0"},
)


def seconds(*samples: float, name: str = "side") -> Side:
    return Side(name=name, unit=Unit.SECONDS, samples=samples)


def compared(judged: Judged, limit: float, bound: Bound = Bound.AT_MOST) -> Measurement:
    """Medians of 1 and 4 seconds."""
    return Measurement(
        what="warm",
        ours=seconds(0.5, 1, 3),
        against=seconds(4, name="fresh Python"),
        goal=Goal(judged=judged, limit=limit, bound=bound),
    )


def row(*findings: Finding, if_missed: str = "") -> Row:
    return Row(
        name="G99",
        title="a row",
        chapter=Chapter.WARM,
        limit_seconds=5,
        measure=lambda: findings,
        if_missed=if_missed,
    )


def page(*findings: Finding, if_missed: str = "") -> str:
    result = RowResult(row=row(if_missed=if_missed), findings=findings, seconds=3.4)
    return render(CONDITIONS, [result])


@pytest.mark.parametrize(
    ("judged", "limit", "bound", "verdict"),
    [
        (Judged.RATIO, 0.25, Bound.AT_MOST, Verdict.MET),
        (Judged.RATIO, 0.24, Bound.AT_MOST, Verdict.MISSED),
        (Judged.RATIO, 0.25, Bound.AT_LEAST, Verdict.MET),
        (Judged.RATIO, 0.26, Bound.AT_LEAST, Verdict.MISSED),
        (Judged.DIFFERENCE, -3, Bound.AT_MOST, Verdict.MET),
        (Judged.DIFFERENCE, -3.1, Bound.AT_MOST, Verdict.MISSED),
        (Judged.OURS, 1, Bound.AT_MOST, Verdict.MET),
        (Judged.OURS, 0.9, Bound.AT_MOST, Verdict.MISSED),
    ],
)
def test_goal_is_judged_by_medians(
    judged: Judged, limit: float, bound: Bound, verdict: Verdict
) -> None:
    assert compared(judged, limit, bound).verdict is verdict


def test_without_a_goal_nothing_is_judged() -> None:
    measured = Measurement(what="x", ours=seconds(1))
    assert measured.verdict is Verdict.NOT_JUDGED
    assert measured.ratio is None


def test_nothing_to_divide_by_is_no_success() -> None:
    measured = Measurement(
        what="x",
        ours=seconds(1),
        against=seconds(0),
        goal=Goal(judged=Judged.RATIO, limit=2),
    )
    assert measured.verdict is Verdict.MISSED


def test_side_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        seconds()


def test_goal_that_compares_needs_another_side() -> None:
    with pytest.raises(ValueError, match="one side only"):
        Measurement(what="x", ours=seconds(1), goal=Goal(judged=Judged.RATIO, limit=1))


def test_sides_in_different_units_are_refused() -> None:
    size = Side(name="size", unit=Unit.BYTES, samples=(1,))
    with pytest.raises(ValueError, match="seconds against bytes"):
        Measurement(what="x", ours=seconds(1), against=size)


def test_page_shows_both_sides_with_spread_ratio_goal_and_verdict() -> None:
    text = page(compared(Judged.RATIO, 0.25))
    assert (
        "| G99 | warm | 1.00 s (500.0 ms to 3.00 s; 3) | fresh Python: 4.00 s (1) | 0.250 "
        "| <= 0.25x | met: 0.250x |" in text
    )


def test_page_shows_a_difference_with_its_sign() -> None:
    assert "| <= + 2.00 ms | met: -3.00 s |" in page(compared(Judged.DIFFERENCE, 0.002))
    slower = Measurement(
        what="hop",
        ours=seconds(0.005),
        against=seconds(0.002),
        goal=Goal(judged=Judged.DIFFERENCE, limit=0.002),
    )
    assert "| **missed**: +3.00 ms |" in page(slower)


def test_miss_says_its_reason_and_a_goal_that_is_met_does_not() -> None:
    missed, met = compared(Judged.OURS, 0.5), compared(Judged.OURS, 2)
    assert "G99 is missed. The disk is slow." in page(missed, if_missed="The disk is slow.")
    assert "G99 is missed. No reason is known yet." in page(missed)
    assert "The disk is slow." not in page(met, if_missed="The disk is slow.")


def test_skipped_and_broken_rows_stay_visible_and_are_counted() -> None:
    text = page(
        Skipped(what="a peer", reason="is not installed"),
        Broken(what="a row", reason="OutOfTime"),
    )
    assert "| G99 | a peer |  |  |  |  | skipped: is not installed |" in text
    assert "| G99 | a row |  |  |  |  | **broken**: OutOfTime |" in text
    assert "Goals: 0 met, 0 missed, 1 skipped, 1 broken." in text


def test_text_of_a_cell_cannot_break_the_table() -> None:
    assert "a \\| b" in page(Skipped(what="a | b", reason="x"))


def test_page_names_the_machine_and_has_one_table_a_chapter_in_their_order() -> None:
    first = RowResult(
        row=replace(row(), name="G1", chapter=Chapter.MEMORY),
        findings=(Skipped(what="x", reason="y"),),
        seconds=1,
    )
    text = render(CONDITIONS, [first, replace(first, row=row())])
    assert "Fast CPU, 2 cores, 8 GiB of memory; load average at the start 0.25." in text
    assert "Python 3.11.7, torch 2.13.0." in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Warm models", "Memory"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00123, Unit.SECONDS, "1.23 ms"),
        (0.0123, Unit.SECONDS, "12.3 ms"),
        (12.3, Unit.SECONDS, "12.30 s"),
        (272_600_000, Unit.BYTES, "272.6 MB"),
        (1, Unit.COUNT, "1"),
    ],
)
def test_value_is_shown_in_a_readable_multiple(value: float, unit: Unit, text: str) -> None:
    assert format_value(value, unit) == text


def test_row_that_fails_keeps_what_it_had_found_and_shows_no_path() -> None:
    def fail() -> Iterator[Finding]:
        yield Skipped(what="early", reason="x")
        raise OSError("/some/folder is gone")

    early, broken = measure(replace(row(), measure=fail)).findings
    assert early == Skipped(what="early", reason="x")
    assert broken == Broken(what="a row", reason="OSError")


def test_row_that_hangs_is_broken_off_at_its_limit_and_cleans_up() -> None:
    cleaned: list[bool] = []

    def hang() -> Iterator[Finding]:
        try:
            threading.Event().wait(60)
        finally:
            cleaned.append(True)
        yield Skipped(what="never", reason="x")

    result = measure(replace(row(), measure=hang, limit_seconds=1))
    assert result.findings == (Broken(what="a row", reason="OutOfTime"),)
    assert result.seconds < 30
    assert cleaned == [True]


def test_every_row_has_a_name_of_its_own() -> None:
    names = [one.name for one in ROWS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"G\d+", name) for name in names)


def test_conditions_name_this_machine_by_its_parts() -> None:
    read = read_conditions()
    assert read.cores >= 1
    assert read.memory_bytes > 2**28
    assert "absent" not in (read.versions["warmrack"], read.versions["Python"])


def test_cpu_model_is_found_where_the_kernel_says_it() -> None:
    assert find_cpu_model("processor\t: 0\nmodel name\t: Fast CPU\n") == "Fast CPU"
    assert find_cpu_model("processor\t: 0\nCPU part\t: 0xd0c\n") is None
