"""G3: a download killed in the middle, and started again."""

from collections.abc import Iterator

from bench.large_file import SIZE_BYTES, LargeFile, served_large_file
from bench.measurements import Bound, Chapter, Finding, Goal, Judged, Measurement, Row, Side, Unit
from bench.peers.downloads import Tool, download, start_download

_ROUNDS = 2
_LIMIT = 1.10
_WAIT_SECONDS = 60.0


def measure() -> Iterator[Finding]:
    with served_large_file() as large:
        ours = [_sent_bytes(large, Tool.OURS) for _ in range(_ROUNDS)]
        stock = [_sent_bytes(large, Tool.STOCK)]
    size = Side(name="size of the file", unit=Unit.BYTES, samples=(SIZE_BYTES,))
    yield Measurement(
        what="bytes that the Hub sent, `kill -9` at half of 1 GiB and the second try together",
        ours=Side(name="warmrack", unit=Unit.BYTES, samples=tuple(ours)),
        against=size,
        goal=Goal(judged=Judged.RATIO, limit=_LIMIT, bound=Bound.AT_MOST),
    )
    yield Measurement(
        what="the same with huggingface_hub",
        ours=Side(name="huggingface_hub", unit=Unit.BYTES, samples=tuple(stock)),
        against=size,
    )


def _sent_bytes(large: LargeFile, tool: Tool) -> int:
    large.hub.reset_counts()
    with large.empty_cache() as cache_dir:
        with start_download(tool, large.hub.url, cache_dir) as killed:
            large.hub.wait_for(
                sent_bytes=SIZE_BYTES // 2, origin="cdn", timeout_seconds=_WAIT_SECONDS
            )
            killed.kill()
        download(tool, large.hub.url, cache_dir)
    return large.hub.read_counts().file_bytes()


ROW = Row(
    name="G3",
    title="killed in the middle",
    chapter=Chapter.BYTES,
    limit_seconds=180,
    measure=measure,
)
