"""G1: one large file from a Hub that limits each connection."""

from collections.abc import Iterator

from bench.large_file import LargeFile, served_large_file
from bench.measurements import Bound, Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from bench.peers.downloads import Tool, download
from tests.hub.faults import Origin, Rate, RateScope

_CONNECTION_RATE = 25e6
_ROUNDS = 2
_TIMES_FASTER = 6.0


def measure() -> Iterator[Finding]:
    with served_large_file() as large:
        large.hub.add_fault(
            Rate(bytes_per_second=_CONNECTION_RATE, scope=RateScope.CONNECTION), origin=Origin.CDN
        )
        ours = [_download(large, Tool.OURS) for _ in range(_ROUNDS)]
        stock = [_download(large, Tool.STOCK) for _ in range(_ROUNDS)]
    yield Measurement(
        what="1 GiB from a Hub with 25 MB/s a connection: call -> snapshot on disk",
        ours=Side(name="warmrack", unit=Unit.SECONDS, samples=tuple(ours)),
        against=Side(name="snapshot_download", unit=Unit.SECONDS, samples=tuple(stock)),
        goal=Goal(judged=Judged.RATIO, limit=1 / _TIMES_FASTER, bound=Bound.AT_MOST),
    )


def _download(large: LargeFile, tool: Tool) -> float:
    with large.empty_cache() as cache_dir:
        return download(tool, large.hub.url, cache_dir).seconds


ROW = Row(
    name="G1",
    title="one file by several connections",
    chapter=Chapter.BYTES,
    limit_seconds=240,
    measure=measure,
    if_missed="The number of connections doubles while that helps, so the first half second has "
    "fewer than eight.",
)
