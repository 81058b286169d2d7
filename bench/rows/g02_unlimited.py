"""G2: one large file from a Hub without limits: time, and processor time."""

from collections.abc import Iterator

from bench.large_file import SIZE_BYTES, LargeFile, served_large_file
from bench.measurements import Bound, Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from bench.peers.downloads import Download, Tool, download

_ROUNDS = 3
_TIMES_FASTER = 2.0
_CPU_SHARE = 0.55


def measure() -> Iterator[Finding]:
    with served_large_file() as large:
        _download(large, Tool.OURS)  # the first run finds the machine's caches cold
        rounds = [
            (_download(large, Tool.OURS), _download(large, Tool.STOCK)) for _ in range(_ROUNDS)
        ]
    ours, stock = zip(*rounds, strict=True)
    yield Measurement(
        what="1 GiB from an unlimited Hub, ours hashed and synced, theirs neither",
        ours=_side(Tool.OURS, [one.seconds for one in ours]),
        against=_side(Tool.STOCK, [one.seconds for one in stock]),
        goal=Goal(judged=Judged.RATIO, limit=1 / _TIMES_FASTER, bound=Bound.AT_MOST),
    )
    gigabytes = SIZE_BYTES / 1e9
    yield Measurement(
        what="the same, processor seconds for each GB",
        ours=_side(Tool.OURS, [one.cpu_seconds / gigabytes for one in ours]),
        against=_side(Tool.STOCK, [one.cpu_seconds / gigabytes for one in stock]),
        goal=Goal(judged=Judged.RATIO, limit=_CPU_SHARE, bound=Bound.AT_MOST),
    )


def _download(large: LargeFile, tool: Tool) -> Download:
    with large.empty_cache() as cache_dir:
        return download(tool, large.hub.url, cache_dir)


def _side(tool: Tool, samples: list[float]) -> Side:
    return Side(name=tool.value, unit=Unit.SECONDS, samples=tuple(samples))


ROW = Row(
    name="G2",
    title="one file without limits",
    chapter=Chapter.BYTES,
    limit_seconds=240,
    measure=measure,
    if_missed="On two cores the Hub, its kernel side and the fetcher share the same processor: a "
    "loaded machine shows in the time first. sha256 of the whole file is a third of our processor "
    "time, and syncing it to the disk most of our time.",
)
