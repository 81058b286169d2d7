"""`python -m bench [ROW ...]`: measure, and write the page of results."""

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.machine import read_conditions
from bench.measurements import Broken, Finding, Row
from bench.results import RowResult, render
from bench.rows import ROWS

RESULTS = Path(__file__).parent / "RESULTS.md"


class OutOfTime(BaseException):
    """The row's time is over; no `except Exception` on the way may keep it."""


def main() -> int:
    """The exit code: 1 where a row broke; a goal that is missed is a result like any other."""
    options = _parse(sys.argv[1:])
    wanted = [row for row in ROWS if not options.rows or row.name in options.rows]
    conditions = read_conditions()
    results = [measure(row) for row in wanted]
    page = render(conditions, results)
    print(page)
    output = options.output or (None if options.rows else RESULTS)
    if output is not None:
        output.write_text(page)
    broken = [one for result in results for one in result.findings if isinstance(one, Broken)]
    return 1 if broken else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of {', '.join(names)}; default all"
    )
    parser.add_argument(
        "--output", type=Path, help=f"default {RESULTS.name} for all rows, stdout only for a choice"
    )
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.rows) - set(names)):
        parser.error(f"no such row: {', '.join(unknown)} (of {', '.join(names)})")
    return options


def measure(row: Row) -> RowResult:
    """All that the row found; what it had found before an error stays, and the error is last."""
    print(f"{row.name} {row.title} ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    findings: list[Finding] = []
    try:
        with _limited(row.limit_seconds):
            findings.extend(row.measure())
    except (Exception, OutOfTime) as error:
        # The page names no paths, which a message may hold; whoever runs it sees the whole.
        traceback.print_exc()
        findings.append(Broken(what=row.title, reason=type(error).__name__))
    return RowResult(row=row, findings=tuple(findings), seconds=time.monotonic() - started)


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Raise OutOfTime in the block when its time is over, so that it still ends its processes."""

    def end(*_: object) -> None:
        raise OutOfTime(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
